"""Stockroom, put together. `uv run fastapi dev app.py` starts it."""

from functools import partial

import audit
import auth
import dashboard
import items
import notifications
import orders
import posts
import users
from kit.app import App
from settings import API, NAME, Settings, get_settings

SUMMARY = "What is in stock, who ordered it, and what people say about it."
VERSION = "0.1.0"
NOUNS = (dashboard, items, orders, posts, notifications, users, audit, auth)


def create_app(settings: Settings) -> App:
    """Put an app together; it opens nothing before its lifespan begins."""
    return App(
        settings,
        title=NAME,
        summary=SUMMARY,
        version=VERSION,
        api=API,
        nouns=NOUNS,
        credentials=auth.CREDENTIALS,
        on_start=[partial(auth.ensure_admin, settings)],
        outbox=auth.OUTBOX,
    )


app = create_app(get_settings())
