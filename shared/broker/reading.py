"""Check that a message can be read, because an unreadable one can end a worker's main process.

`check_envelope` checks an item of a Redis list before kombu parses it; `check_task` checks a message of any broker
before Celery parses it. Other Celery clients publish to the same queues, so everything that Celery can run is accepted.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NoReturn

from kombu.utils.json import loads

from shared.texts import valid

MAX_BYTES = 64 * 1024**2  # of a message on a list
MAX_NAME = 255  # characters of a task's id and of its name
_MAX_DETAIL = 200  # characters
_BODY_PARTS = 3  # of protocol 2: args, kwargs, and what comes after
#: Headers that Celery looks at after it has given the task a place in the pool, and their types; all may be absent.
_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("root_id", "parent_id", "shadow", "group", "argsrepr", "kwargsrepr"), (str,)),
    **dict.fromkeys(("retries", "group_index", "replaced_task_nesting"), (int,)),
    **dict.fromkeys(("stamped_headers", "groups"), (list, tuple)),
    "stamps": (dict,),
}


class Reason(StrEnum):
    """Why a message cannot be read."""

    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    BAD_ENVELOPE = "bad_envelope"
    BAD_HEADERS = "bad_headers"
    BAD_BODY = "bad_body"
    REFUSED = "refused"  # by Celery, for what is not looked at here


class Unreadable(Exception):
    """No worker can read the message. `detail` is for people; it is cut and made valid here."""

    def __init__(self, reason: Reason, detail: object) -> None:
        self.reason = reason
        self.detail = valid(str(detail)[:_MAX_DETAIL])
        super().__init__(f"{reason}: {self.detail}")


def check_envelope(raw: bytes) -> None:
    """Check what lies on a Redis list: the JSON object that kombu puts there. Raises `Unreadable`."""
    if len(raw) > MAX_BYTES:
        raise Unreadable(Reason.TOO_LARGE, f"It has {len(raw)} bytes; {MAX_BYTES} are allowed.")
    try:
        envelope = loads(raw.decode())
    except Exception as failure:  # also that of a decoder that the message itself names: see kombu's `register_type`
        raise Unreadable(Reason.NOT_JSON, failure) from failure
    if not isinstance(envelope, dict):
        raise Unreadable(Reason.NOT_JSON, "It is JSON, but not an object.")
    properties = envelope.get("properties")
    if not isinstance(properties, dict):
        _refuse_envelope("properties is not an object")
    if not _is_name(properties.get("delivery_tag")):
        _refuse_envelope("properties.delivery_tag is not a string")
    delivery = properties.get("delivery_info")
    if not isinstance(delivery, dict) or not all(_is_text(delivery.get(k)) for k in ("exchange", "routing_key")):
        _refuse_envelope("properties.delivery_info has no exchange and routing_key")
    if not isinstance(envelope.get("headers"), dict | None):
        _refuse_envelope("headers is not an object")
    _check_body(envelope.get("body"), properties.get("body_encoding"))


def check_task(headers: Any, body: Any) -> None:
    """Check a message's headers and its decoded body, of Celery's protocol 2 or 1. Raises `Unreadable`."""
    if isinstance(body, dict):  # protocol 1, or one that has both
        args, kwargs, fields = body.get("args", []), body.get("kwargs", {}), {**body, **headers}
    elif isinstance(body, list | tuple) and len(body) == _BODY_PARTS:
        (args, kwargs, after), fields = body, headers
        if not isinstance(after, dict):
            raise Unreadable(Reason.BAD_BODY, "The third part of the body is not an object.")
    else:
        raise Unreadable(Reason.BAD_BODY, "The body is not a list of arguments, keyword arguments and options.")
    if not isinstance(args, list | tuple):
        raise Unreadable(Reason.BAD_BODY, "The arguments are not a list.")
    if not isinstance(kwargs, dict):
        raise Unreadable(Reason.BAD_BODY, "The keyword arguments are not an object.")
    _check_fields(fields)


def _check_fields(fields: Mapping[str, Any]) -> None:
    for name in ("id", "task"):
        if not _is_name(fields.get(name)):
            _refuse_header(name, f"a string of 1 to {MAX_NAME} characters")
    for name, types in _TYPES.items():
        value = fields.get(name)
        if value is not None and not isinstance(value, types):
            _refuse_header(name, f"of type {types[0].__name__}")
    if not all(isinstance(name, str) for name in fields.get("stamped_headers") or ()):
        _refuse_header("stamped_headers", "a list of strings")
    limits = fields.get("timelimit")
    if limits is not None and not _are_limits(limits):
        _refuse_header("timelimit", "a list of two numbers")


def _check_body(body: Any, encoding: Any) -> None:
    if encoding is not None and (not isinstance(encoding, str) or encoding.lower() not in {"base64", "utf-8", ""}):
        _refuse_envelope(f"properties.body_encoding is {encoding!r:.50}, not base64 or utf-8")
    if not isinstance(body, str) or not body:
        raise Unreadable(Reason.BAD_BODY, "The body is not a string, or empty.")
    try:
        if encoding and encoding.lower() == "base64":
            base64.b64decode(body)
        else:
            body.encode()
    except ValueError as failure:
        raise Unreadable(Reason.BAD_BODY, failure) from failure


def _is_name(value: Any) -> bool:
    """Return whether it can name something: it is short, and without halves of surrogate pairs, so UTF-8."""
    return _is_text(value) and 0 < len(value) <= MAX_NAME


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and valid(value) == value


def _are_limits(value: Any) -> bool:
    """Return whether these are a hard and a soft limit in seconds, or none."""
    return isinstance(value, list | tuple) and [*map(_is_limit, value)] == [True, True]


def _is_limit(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return False
    return value is None or (math.isfinite(value) and value >= 0)


def _refuse_envelope(what: str) -> NoReturn:
    raise Unreadable(Reason.BAD_ENVELOPE, f"{what[:1].upper()}{what[1:]}.")


def _refuse_header(name: str, expected: str) -> NoReturn:
    raise Unreadable(Reason.BAD_HEADERS, f"The header {name} is not {expected}.")
