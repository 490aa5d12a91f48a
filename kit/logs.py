"""Logs: loguru for everything, one line a request, under the id of the request."""

import json
import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

from loguru import logger

from kit.settings import KitSettings

if TYPE_CHECKING:
    from loguru import Message as LogMessage
    from loguru import Record

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
DEVELOPMENT_LINE = (
    "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <8}</level> {message} <dim>{extra[request_id]}</dim>"
)
AS_JSON = json.JSONEncoder(default=str).encode  # made once: `json.dumps` would make one for every line


def configure_logging(settings: KitSettings) -> None:
    """Make loguru the only logger: JSON lines or readable lines on standard error."""
    logger.remove()
    logger.configure(patcher=_add_request_id)
    # diagnose=False: a traceback must not print the values of variables, some of which are secrets.
    sink, line = (_write_json, "{message}") if settings.log_json else (sys.stderr, DEVELOPMENT_LINE)
    logger.add(sink, format=line, level=settings.log_level, diagnose=False, backtrace=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.INFO, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "fastapi", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        # uvicorn's access line prints the query, and every request has our own line already.
        library.propagate = name != "uvicorn.access"
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it greets with a line for each of its plugins


def _add_request_id(record: "Record") -> None:
    record["extra"].setdefault("request_id", REQUEST_ID.get())


def _write_json(message: "LogMessage") -> None:
    """One event, one line, whatever is in it: JSON escapes every control character."""
    record = message.record
    event = {"time": record["time"].isoformat(), "level": record["level"].name, "message": record["message"]}
    event |= record["extra"]
    if record["exception"] is not None:
        event["exception"] = str(message).removeprefix(record["message"]).strip()
    sys.stderr.write(AS_JSON(event) + "\n")


class _ToLoguru(logging.Handler):
    """Hands the records of the standard `logging` to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO"
        logger.opt(exception=record.exc_info).bind(logger=record.name).log(level, "{}", record.getMessage())
