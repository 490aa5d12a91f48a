"""The request id, the time a request took, and its line in the log."""

import logging
import time
import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

logger = logging.getLogger("app")


class RequestLog:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request_id = request.headers.get("X-Request-ID") or uuid.uuid4().hex
        started = time.perf_counter()
        response = self.get_response(request)
        elapsed = time.perf_counter() - started
        response["X-Request-ID"] = request_id
        response["X-Process-Time"] = f"{elapsed:.4f}"
        response["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        logger.info(
            "%s %s %s %s %.2f ms", request_id, request.method, request.path, response.status_code, elapsed * 1e3
        )
        return response
