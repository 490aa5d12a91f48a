"""The documentation in the browser: Swagger UI, served by the app itself, so that a reader needs no other host."""

from hashlib import sha256
from html import escape
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

SWAGGER_UI = Path(__file__).parent / "swagger-ui"  # the authors' own files; README.md there says how to renew them
# Only what Swagger UI needs; its style sheet draws icons as `data:` images.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
# Paths are relative, so that they also hold behind a proxy that takes a prefix away.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="favicon.ico">
<link rel="stylesheet" href="{folder}/swagger-ui.css">
<script src="{folder}/swagger-ui-bundle.js" defer></script>
<script src="{folder}/start.js" defer></script>
</head>
<body><div id="swagger-ui" data-openapi="{openapi}"></div></body>
</html>
"""
START = """SwaggerUIBundle({
  dom_id: "#swagger-ui",
  url: document.getElementById("swagger-ui").dataset.openapi,
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  validatorUrl: null,
});
"""
ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">
<path fill="#0a7d4f" d="M1 5l7-4 7 4v10H1z"/><path fill="#fff" d="M4 8h8v1H4zm0 3h8v1H4z"/>
</svg>
"""
IMMUTABLE = "public, max-age=31536000, immutable"


def add_docs(app: FastAPI) -> None:
    """Serve `/docs`, what it loads, and `/favicon.ico`, if the app serves its OpenAPI document.

    The files are read once. Their path has a hash of them all, so a browser keeps them until they change.
    """
    if app.openapi_url is None:
        return
    files = {
        "swagger-ui-bundle.js": ("text/javascript", (SWAGGER_UI / "swagger-ui-bundle.js").read_bytes()),
        "swagger-ui.css": ("text/css", (SWAGGER_UI / "swagger-ui.css").read_bytes()),
        "start.js": ("text/javascript", START.encode()),
    }
    folder = f"docs/{sha256(b''.join(content for _, content in files.values())).hexdigest()[:16]}"
    page = PAGE.format(title=escape(app.title), folder=folder, openapi=escape(app.openapi_url.removeprefix("/")))

    async def docs(_: Request) -> Response:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
        return HTMLResponse(page, headers=headers)

    app.add_route("/docs", docs, include_in_schema=False)
    for name, (media_type, content) in files.items():
        _add_file(app, f"/{folder}/{name}", content, media_type, IMMUTABLE)
    _add_file(app, "/favicon.ico", ICON.encode(), "image/svg+xml", "public, max-age=86400")


def _add_file(app: FastAPI, path: str, content: bytes, media_type: str, cache_control: str) -> None:
    async def file(_: Request) -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": cache_control})

    app.add_route(path, file, include_in_schema=False)
