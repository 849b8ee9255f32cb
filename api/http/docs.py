"""The documentation page: Swagger UI from an installed package, so that it works without internet access."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from pydantic_core import to_json

_ASSETS = Path(str(files("fastapi_offline"))) / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Celeriac</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# To show an example of a request, Swagger UI copies the schema of the body, with all kinds of job, for each of them.
_START = """const ExamplesAsTheyAre = () => ({
  afterLoad({ fn }) {
    const made = fn.getSampleSchema;
    fn.getSampleSchema = (schema, mediaType, config, example) =>
      example === undefined ? made(schema, mediaType, config) : JSON.stringify(example, null, 2);
  },
});
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  defaultModelsExpandDepth: -1,
  displayRequestDuration: true,
  plugins: [ExamplesAsTheyAre],
  tryItOutEnabled: true,
  validatorUrl: null,
});
"""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/openapi.json")
def document(request: Request) -> Response:
    """Return the document. Creating it takes a second, once; this function is not async so as not to block the loop."""
    made: bytes | None = getattr(request.app.state, "openapi", None)
    if made is None:
        made = request.app.state.openapi = to_json(request.app.openapi())
    return Response(made, media_type="application/json")


@router.get("/docs/start.js")
async def start() -> Response:
    """Return the script that starts the page; the content security policy forbids inline scripts."""
    return Response(_START, headers=_HEADERS, media_type="text/javascript")


@router.get("/docs/{asset}")
async def asset(asset: Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"]) -> FileResponse:
    """Return one of Swagger UI's own files."""
    return FileResponse(_ASSETS / asset, headers=_HEADERS | {"Cache-Control": "public, max-age=86400"})
