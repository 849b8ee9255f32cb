"""The OpenAPI document: FastAPI's, completed, and without parts that generators cannot read.

`python -m api.document` writes it to a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.http.clients import for_clients
from api.http.models import REFERENCE, SCHEMAS
from api.http.problems import MEDIA_TYPE, ProblemDocument
from api.http.problems import problems as of_statuses
from shared.contract.params import with_components

_COLUMNS = 160
_KEY = "key"
_SECURITY = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "cel_...",
    "description": "A key, with the scopes that an operation names. Before the first key is made, nobody on the "
    "machine itself is asked for one.",
}
_RESPONSE = "#/components/responses/{name}"
_NAMES = {
    "Alive": "Liveness",
    "Choices": "ChoiceDimension",
    "Dimension": "SearchDimension",
    "Element": "CanvasElement",
    "Folder": "StoreFolder",
    "Limits": "TimeLimits",
    "Links": "JobLinks",
    "Ready": "Readiness",
    "Refused": "RefusedJob",
    "Retry": "RetryPolicy",
    "State": "JobState",
    "When": "CaseBranch",
}
DESCRIPTION = (
    "Submit a job with `POST /jobs`, and read `GET /jobs/{job_id}?wait_s=30` until it has ended. What a job's `result` "
    "is, `JobResults` says for each kind. Every error is a problem document (RFC 9457) with a `code`; those of a body "
    "have a JSON pointer for each wrong field. Send an `Idempotency-Key` with a submission, and repeat it safely."
)
TAGS = [
    {"name": "jobs", "description": "Submit, read, wait for, cancel and rerun jobs; their events, logs and files."},
    {"name": "schedules", "description": "Jobs at the times of a crontab or an interval."},
    {"name": "queues", "description": "How much waits where; pause and resume."},
    {"name": "dead letters", "description": "Messages that no worker could read: look at them, put back, delete."},
    {"name": "workers", "description": "Which workers are there, what they run and which kinds they know."},
    {"name": "job kinds", "description": "The catalogue: parameters, results, limits and examples of each kind."},
    {"name": "uploads", "description": "Send a file, and name its artifact in a job."},
    {"name": "keys", "description": "Keys: what a caller shows, and what it allows."},
    {"name": "health", "description": "For load balancers and monitoring."},
]
_DESCRIPTIONS = {  # the phrases of http.HTTPStatus depend on Python's version
    "400": "The body is not valid JSON, or could not be read.",
    "401": "No key was sent, or one that is wrong, expired or revoked.",
    "403": "The key does not allow this, or a page of another origin asks for it.",
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


def install(
    app: FastAPI, components: Callable[[], Mapping[str, Any]], needs: Mapping[str, Sequence[str] | None]
) -> None:
    """Serve this document for `app`. `components` returns the schemas of bodies that FastAPI does not parse.

    `needs` are the scopes that each operation needs of a key, by method and path; None where no key is asked for.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate(), components(), needs)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def _completed(
    document: dict[str, Any], components: Mapping[str, Any], needs: Mapping[str, Sequence[str] | None]
) -> dict[str, Any]:
    _secure(document, needs)
    schemas = document["components"]["schemas"]
    _, problem = models_json_schema([(ProblemDocument, "serialization")], ref_template=REFERENCE)
    for name, schema in {**components, **problem["$defs"]}.items():
        if schemas.setdefault(name, schema) != schema:
            raise ValueError(f"two different schemas are named {name}; rename one of the models")
    problems: dict[str, Any] = {}
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _of_parameter(parameter["schema"])
        for status, response in operation["responses"].items():
            _fix(status, response)
            if MEDIA_TYPE in response.get("content", {}):
                problems[f"Problem{status}"] = response
                operation["responses"][status] = {"$ref": _RESPONSE.format(name=f"Problem{status}")}
    for unused in ("HTTPValidationError", "ValidationError", "OnlyOfSteps"):  # nothing refers to them
        schemas.pop(unused, None)
    shown = with_components(schemas, REFERENCE)
    schemas = {name: for_clients(_shortened(schema)) for name, schema in shown.items()}
    names = _names(schemas)
    named = {names.get(name, name): schema for name, schema in schemas.items()}
    document["components"] = {
        "responses": dict(sorted(problems.items())),
        "schemas": dict(sorted(named.items())),
        "securitySchemes": {_KEY: _SECURITY},
    }
    return cast("dict[str, Any]", _renamed(document, names))


def _secure(document: Mapping[str, Any], needs: Mapping[str, Sequence[str] | None]) -> None:
    """Say of each operation which scopes it needs, and how it refuses who does not have them."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scopes = needs[f"{method.upper()} {path}"]
            if scopes is None:
                continue
            operation["security"] = [{_KEY: list(scopes)}]
            refusals = of_statuses(401, 403) if scopes else of_statuses(401)
            operation["responses"] |= {str(status): refusal for status, refusal in refusals.items()}


def _names(schemas: Mapping[str, Any]) -> dict[str, str]:
    """Return other names for schemas whose own do not say enough where a client package has all in one place."""
    members = schemas.get("Expression", {}).get("oneOf", ())
    operations = [member["$ref"].removeprefix(SCHEMAS) for member in members]
    return _NAMES | {name: f"{name.removesuffix('Value')}Expression" for name in operations}


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if isinstance(value, str) and value.startswith(SCHEMAS):
        name = value.removeprefix(SCHEMAS)
        return SCHEMAS + names.get(name, name)
    if not isinstance(value, dict):
        return value
    return {key: _renamed(item, names) for key, item in value.items()}


def _shortened(schema: dict[str, Any]) -> dict[str, Any]:
    """Remove titles, which repeat the names, and descriptions that say what every discriminator is."""
    schema.pop("title", None)
    for field in schema.get("properties", {}).values():
        field.pop("title", None)
        if "const" in field:
            field.pop("description", None)
    return schema


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _of_parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter, without null (a URL or header has none), title and second description."""
    members: list[dict[str, Any]] = [member for member in schema.get("anyOf", ()) if member != {"type": "null"}]
    if len(members) == 1:
        schema = {name: value for name, value in schema.items() if name != "anyOf"} | members[0]
    return for_clients({name: value for name, value in schema.items() if name not in ("title", "description")})


def _fix(status: str, response: dict[str, Any]) -> None:
    content = response.get("content", {})
    if status == "422":  # FastAPI documents its own error format, which this service never sends
        content.pop("application/json", None)
        content[MEDIA_TYPE] = {"schema": {"$ref": REFERENCE.format(model=ProblemDocument.__name__)}}
    if MEDIA_TYPE in content:
        response["description"] = _DESCRIPTIONS[status]
    for media in content.values():
        media.pop("itemSchema", None)  # belongs to OpenAPI 3.2; the document is 3.1


def text_of(document: Mapping[str, Any]) -> str:
    """Return the document as text, as in the repository: what fits into a line stands in one.

    Nothing is indented: it would be a tenth of the file, which generators fetch.
    """
    return _text(document) + "\n"


def _text(value: Any) -> str:
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= _COLUMNS or not isinstance(value, dict | list):
        return line
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {_text(item)}" for key, item in value.items()) + "\n}"
    return "[\n" + ",\n".join(map(_text, value)) + "\n]"
