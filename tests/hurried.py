"""The app as it is, but for some times: a server of it shows the same as one that waits for as long as in earnest."""

from datetime import timedelta
from importlib import import_module

from app import app
from tests.server import HURRIED_BUSY_SECONDS, HURRIED_SHUTDOWN_SECONDS

__all__ = ["app"]

vars(import_module("kit.app")).update(GRACEFUL_SHUTDOWN_SECONDS=HURRIED_SHUTDOWN_SECONDS)
vars(import_module("kit.sqlite")).update(BUSY_SECONDS=HURRIED_BUSY_SECONDS)
vars(import_module("kit.outbox")).update(
    LEASE=timedelta(seconds=1), POLL_SECONDS=0.1, PAUSES=[timedelta(seconds=0.5)] * 20
)
vars(import_module("kit.mail")).update(SERVER_SECONDS=1)
