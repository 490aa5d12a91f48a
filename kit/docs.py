"""The documentation in the browser: Swagger UI, served by the app itself, so that a reader needs no other host."""

from hashlib import sha256
from html import escape
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).parent / "static"
SWAGGER_UI = STATIC / "swagger-ui"  # the authors' own files; README.md there says how to renew them
# Only what Swagger UI needs; its style sheet draws icons as `data:` images.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


def add_docs(app: FastAPI) -> None:
    """Serve `/docs` and what it loads, if the app serves its OpenAPI document.

    The files are read once. Their path has a hash of them all, so a browser keeps them until they change.
    """
    if app.openapi_url is None:
        return
    scripts = [SWAGGER_UI / "swagger-ui-bundle.js", STATIC / "docs.js"]
    files = [(path, "text/javascript") for path in scripts] + [(SWAGGER_UI / "swagger-ui.css", "text/css")]
    folder = f"docs/{sha256(b''.join(path.read_bytes() for path, _ in files)).hexdigest()[:16]}"
    for path, media_type in files:
        _serve(app, f"/{folder}/{path.name}", path.read_bytes(), media_type, "public, max-age=31536000, immutable")
    page = (STATIC / "docs.html").read_text().replace("{title}", escape(app.title)).replace("{folder}", folder)
    page = page.replace("{openapi}", escape(app.openapi_url.removeprefix("/")))
    _serve(app, "/docs", page.encode(), "text/html", "no-cache", {"Content-Security-Policy": CONTENT_SECURITY_POLICY})


def _serve(
    app: FastAPI, path: str, content: bytes, media_type: str, cache: str, headers: dict[str, str] | None = None
) -> None:
    async def file(_: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": cache} | (headers or {}))

    app.add_route(path, file, include_in_schema=False)
