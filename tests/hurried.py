"""The app as it is, but for two times: a server of it shows the same as one that waits for as long as in earnest."""

from importlib import import_module

from app import app
from tests.server import HURRIED_BUSY_SECONDS, HURRIED_SHUTDOWN_SECONDS

__all__ = ["app"]

vars(import_module("kit.app")).update(GRACEFUL_SHUTDOWN_SECONDS=HURRIED_SHUTDOWN_SECONDS)
vars(import_module("kit.sqlite")).update(BUSY_SECONDS=HURRIED_BUSY_SECONDS)
