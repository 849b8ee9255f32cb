"""Schemas as generators of clients need them: what JSON Schema leaves open, and without what does not compile.

In Go and Java a number without a format has 32 bits, which the size of a file does not fit into; a space makes no
name for a constant; a default does not compile if it is an object or belongs to a union of types.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

_LARGEST_INT32 = 2**31 - 1
_NULL = {"type": "null"}
_BY_NAME = ("properties", "patternProperties", "$defs")
_VALUES = ("const", "default", "enum", "examples")


def for_clients(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that says the same to a person and compiles in the languages of docs/clients.md."""
    made = {name: _inner(name, value) for name, value in schema.items()}
    if "default" in made and not _compiles(made):
        del made["default"]  # the description states it
    if _is_value_or_object(made):
        made["oneOf"] = made.pop("anyOf")
    return made | _width(made) | _names_of_signs(made)


def _inner(name: str, value: Any) -> Any:
    if name in _VALUES:
        return value
    if name in _BY_NAME:
        return {key: for_clients(schema) for key, schema in value.items()}
    if isinstance(value, dict):
        return for_clients(value)
    if isinstance(value, list):
        return [for_clients(item) if isinstance(item, dict) else item for item in value]
    return value


def _is_value_or_object(schema: Mapping[str, Any]) -> bool:
    """Tell whether a union is of plain values and one object, of which a value can be only one.

    Of `anyOf`, a client in TypeScript by openapi-generator would keep the object only.
    """
    types = [member for member in schema.get("anyOf", ()) if member != _NULL]
    objects = [member for member in types if "$ref" in member or member.get("type") == "object"]
    return len(objects) == 1 < len(types)


def _compiles(schema: Mapping[str, Any]) -> bool:
    types = [member for member in schema.get("anyOf", ()) if member != _NULL]
    return schema["default"] is not None and not isinstance(schema["default"], dict) and len(types) <= 1


def _width(schema: Mapping[str, Any]) -> dict[str, str]:
    if schema.get("type") == "number":
        return {"format": "double"}
    if schema.get("type") == "integer" and schema.get("maximum", 2**63) > _LARGEST_INT32:
        return {"format": "int64"}
    return {}


def _names_of_signs(schema: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return names for the values of an enum of single signs with a space among them, which has no name otherwise."""
    values = schema.get("enum", ())
    if not all(isinstance(value, str) and len(value) == 1 for value in values) or not any(map(str.isspace, values)):
        return {}
    names = [unicodedata.name(value).replace("-", "_").replace(" ", "_") for value in values]
    return {"x-enum-varnames": names}
