"""`/docs` and `/openapi.json`: the API, readable without a network (Swagger UI is vendored, with its licence)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from bidder_api.problems import plain_problem

STATIC = Path(__file__).parent / "static" / "swagger-ui"
FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
    "LICENSE": "text/plain",
    "NOTICE": "text/plain",
}
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Endcap API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)


def routes(write_document: Callable[[], dict[str, Any]]) -> list[Route]:
    """Return the routes of the documentation; the document is written when it is first asked for."""
    encoded: list[bytes] = []

    async def openapi(_request: Request) -> Response:
        if not encoded:
            encoded.append(msgspec.json.encode(write_document()))
        return Response(encoded[0], media_type="application/json", headers={"Access-Control-Allow-Origin": "*"})

    async def page(_request: Request) -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})

    async def start(_request: Request) -> Response:
        return Response(START, media_type="text/javascript")

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return plain_problem(404, "path_unknown", f"there is nothing at {request.url.path}")
        return FileResponse(STATIC / name, media_type=FILES[name], headers={"Cache-Control": "max-age=86400"})

    return [
        Route("/openapi.json", openapi),
        Route("/docs", page),
        Route("/docs/start.js", start),
        Route("/docs/{name}", file),
    ]
