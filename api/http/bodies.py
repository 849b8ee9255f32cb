"""Read request bodies up to a limit, and validate their raw bytes in strict JSON mode; errors have JSON pointers.

Strict JSON mode accepts `"2026-01-31T12:00:00Z"` as a time and refuses `"1"` and `false` as an integer. FastAPI's
parsing cannot do both, because it passes Python values to Pydantic.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

from fastapi import Request
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from api.http.models import REFERENCE
from api.http.pointers import SchemaMap, field_errors, pointer
from api.http.problems import FieldError, Problem
from api.settings import GatewaySettings
from shared.contract.definition import MAX_JSON_DEPTH
from shared.ledger.calling.calls import asked

T = TypeVar("T")

_LONGEST_POINTER = 500  # characters: a key may have a megabyte
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LARGE = re.compile(
    rb"[0-9](?:[eE]\+?[0-9]{3}|[0-9]{299})"
)  # a pattern that begins with one class of characters is searched for much faster


class _KeyTwice(Exception):
    """An object has a key more than once."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise _KeyTwice


# Reads nothing but keys: numbers stay as they are written, and objects are dropped.
_UNIQUE_KEYS = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_int=str, parse_float=str)


class Body(Generic[T]):
    """A JSON body of one shape."""

    def __init__(
        self,
        name: str,
        shape: Any,
        *,
        envelope: int,
        shown: Callable[[], Any] | None = None,
        examples: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Name the schema of the body; `envelope` is the number of levels above the parameters of a job.

        The document has the schema of the type that `shown` returns, if that is not the one that is checked, and the
        `examples`.
        """
        self.name = name
        self._adapter: TypeAdapter[T] = TypeAdapter(shape)
        self._shown = shown or (lambda: shape)
        self._examples = {name: {"value": value} for name, value in examples.items()}
        self._levels = envelope + MAX_JSON_DEPTH

    @cached_property
    def _schema(self) -> SchemaMap:
        return SchemaMap(self._adapter.json_schema())

    def warm_up(self) -> None:
        """Create the schema, so that the first refusal does not wait for it."""
        self._schema.names_in({})

    def document(self, *, required: bool = True, examples: bool = True) -> dict[str, Any]:
        """Return `openapi_extra` of a route that takes this body; see `components`."""
        media: dict[str, Any] = {"schema": {"$ref": REFERENCE.format(model=self.name)}}
        if examples and self._examples:
            media["examples"] = self._examples
        return {"requestBody": {"required": required, "content": {"application/json": media}}}

    def components(self) -> dict[str, Any]:
        """Return the schemas that `document` refers to, by name."""
        schema = TypeAdapter(self._shown()).json_schema(ref_template=REFERENCE)
        return {**schema.pop("$defs", {}), self.name: schema}

    async def read(self, request: Request) -> tuple[T, bytes]:
        """Return the checked body and its bytes. Raises `Problem`: 400, 413, 415 or 422."""
        refuse_upgrade(request)
        _refuse_other_media_types(request)
        settings: GatewaySettings = request.app.state.settings
        body = await _bytes_of(request, settings.max_body_bytes)
        if current := asked.get():
            current.arrived_at = asyncio.get_running_loop().time()  # not when a slow client began to send
        return self.check(body), body

    async def read_or(self, default: T, request: Request) -> tuple[T, bytes]:
        """Return the result of `read`, or `default` for a request without a body."""
        return await self.read(request) if _has_body(request) else (default, b"{}")

    def check(self, body: bytes) -> T:
        """Return the validated `body`. Raises `Problem`: 400 or 422."""
        try:
            checked: T = self._adapter.validator.validate_json(body)
        except ValidationError as invalid:
            self._refuse(body, invalid)
        self._refuse_odd(body)
        return checked

    def _refuse(self, body: bytes, invalid: ValidationError) -> NoReturn:
        errors = invalid.errors(include_url=False, include_input=False)
        if errors[0]["type"] == "json_invalid":
            _refuse_malformed(errors[0]["ctx"]["error"])
        self._refuse_odd(body)
        code, found = field_errors(errors, self._schema)
        what = "The body names an unknown kind." if code == "unknown_kind" else "The body is invalid."
        raise Problem(422, code, f"{what} {found[0].pointer or 'The body'}: {found[0].message}", errors=found)

    def _refuse_odd(self, body: bytes) -> None:
        """Refuse bodies that parse but are unsafe.

        Nesting that crashes other parsers, numbers that JSON lacks, and keys that are given twice: of their values one
        parser takes the first, perhaps to check it on the way here, and another the last.
        """
        if body.count(b"{") + body.count(b"[") > self._levels and _is_deeper(body, self._levels):
            _refuse_depth()
        if b"NaN" in body or b"Infinity" in body or _LARGE.search(body):
            _refuse_not_finite(body)
        try:
            _UNIQUE_KEYS.decode(body.decode())
        except _KeyTwice:
            _refuse_key_given_twice(body)


def refuse_upgrade(request: Request) -> None:
    """Refuse a body that asks to go on with another protocol, as Java's HTTP client does by default.

    uvicorn answers with HTTP/1.1, as it should, but does not hand on the body: a file would be stored as an empty one.
    """
    if "upgrade" in request.headers and _has_body(request):
        raise Problem(
            400,
            "upgrade_refused",
            "The request asks for another protocol (Upgrade), so its body was not read. Send it with HTTP/1.1.",
            headers={"Connection": "close"},  # the rest of the body is not read
        )


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"


async def _bytes_of(request: Request, limit_bytes: int) -> bytes:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        _refuse_size(limit_bytes)
    body, more = b"", True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            _refuse_size(limit_bytes)
        more = message.get("more_body", False)
    return body


def _refuse_other_media_types(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(
            415,
            "unsupported_media_type",
            f"The body's media type is {media_type[:100] or 'missing'}; send it as application/json.",
            headers={"Accept-Post": "application/json"},
        )


def _refuse_size(limit_bytes: int) -> NoReturn:
    raise Problem(
        413,
        "body_too_large",
        f"The body is larger than {limit_bytes} bytes. Upload data with POST /uploads and name its artifact instead.",
        headers={"Connection": "close"},  # the rest of the body is not read
    )


def _refuse_malformed(why: str) -> NoReturn:
    if why.startswith("recursion limit"):
        _refuse_depth()
    raise Problem(400, "malformed_json", f"The body is not valid JSON: {why}.")


def _refuse_depth() -> NoReturn:
    raise Problem(
        422,
        "too_deep",
        f"The body is nested too deeply; reduce the parameters to {MAX_JSON_DEPTH} levels of arrays and objects.",
    )


def _is_deeper(body: bytes, levels: int) -> bool:
    """Return whether valid JSON nests deeper than `levels`: each round removes the innermost brackets."""
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def _refuse_not_finite(body: bytes) -> None:
    try:
        from_json(body, allow_inf_nan=False)
    except ValueError as found:
        _refuse_malformed(f"NaN and Infinity are not JSON numbers ({found})")

    def finite(text: str) -> float:
        if math.isinf(number := float(text)):
            _refuse_malformed(f"the number {text[:32]} exceeds the range of a double")
        return number

    json.loads(body, parse_float=finite)


class _Pairs(list[tuple[str, Any]]):
    """An object with all its keys, in order."""


def _refuse_key_given_twice(body: bytes) -> NoReturn:
    path = next(_keys_given_twice(json.loads(body, object_pairs_hook=_Pairs, parse_int=str, parse_float=str), ()))
    where = pointer(path)[:_LONGEST_POINTER]
    found = FieldError(pointer=where, message="The object has this key more than once. Give it once.")
    raise Problem(400, "duplicate_key", f"An object of the body has a key more than once. {where}", errors=[found])


def _keys_given_twice(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each repeated key, in the order of the body."""
    if isinstance(value, _Pairs):
        seen = set[str]()
        for key, inner in value:
            if key in seen:
                yield (*path, key)
            seen.add(key)
            yield from _keys_given_twice(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _keys_given_twice(inner, (*path, index))
