"""The OpenAPI document: FastAPI's, completed, and without parts that generators cannot read.

`python -m api.document` writes it to a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.http.problems import MEDIA_TYPE, ProblemDocument

_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTIONS = {  # the phrases of http.HTTPStatus depend on Python's version
    "400": "The body is not valid JSON.",
    "404": "The resource does not exist.",
    "408": "The body was sent too slowly.",
    "409": "The state of the resource does not allow it.",
    "410": "The resource existed; its retention has ended.",
    "413": "The body is too large.",
    "415": "The media type of the body is not supported.",
    "416": "The range is outside the content.",
    "422": "The request is invalid.",
    "503": "The ledger or the broker does not respond; retry after `Retry-After`. With the `code` `outcome_unknown` "
    "the request may have been carried out.",
    "507": "The ledger or the store is full; retry after `Retry-After`.",
}


def install(app: FastAPI, components: Callable[[], Mapping[str, Any]]) -> None:
    """Serve this document for `app`. `components` returns the schemas of bodies that FastAPI does not parse."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate(), components())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _completed(document: dict[str, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    schemas = document["components"]["schemas"]
    _, problem = models_json_schema([(ProblemDocument, "serialization")], ref_template=_REFERENCE)
    for name, schema in {**components, **problem["$defs"]}.items():
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two different schemas are named {name}; rename one of the models")
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
        for status, response in operation["responses"].items():
            _fix(status, response)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            if isinstance(field.get("default"), dict):
                del field["default"]  # generators do not accept an object as default; the description states it
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional parameter: a URL or header cannot contain null."""
    members: list[dict[str, Any]] = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) != 1:
        return schema
    return {name: value for name, value in schema.items() if name != "anyOf"} | members[0]


def _fix(status: str, response: dict[str, Any]) -> None:
    content = response.get("content", {})
    if status == "422":  # FastAPI documents its own error format, which this service never sends
        content.pop("application/json", None)
        content[MEDIA_TYPE] = {"schema": {"$ref": _REFERENCE.format(model=ProblemDocument.__name__)}}
    if MEDIA_TYPE in content:
        response["description"] = _DESCRIPTIONS[status]
    for media in content.values():
        media.pop("itemSchema", None)  # belongs to OpenAPI 3.2; the document is 3.1


def text_of(document: Mapping[str, Any]) -> str:
    """Return the document as text, as in the repository."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
