"""Compare two versions of contracts: jobs that were accepted by the old one have to run with the new one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cli.authors.describing import Description

_NOTES = {"title", "description", "examples", "deprecated"}  # they say nothing about which values are valid
_AT_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_AT_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_AS_IT_IS = ("pattern", "format", "multipleOf", "uniqueItems", "prefixItems")
_SHOWN = 60  # characters of a schema

Schema = dict[str, Any]


def differences(old: Description, new: Description) -> Iterator[str]:
    """Yield what of `new` breaks accepted jobs, schedules or clients of `old`. New kinds and optional fields do not."""
    successors = {replaced: after for after in new.values() for replaced in after.get("replaces", ())}
    for kind, before in old.items():
        after = new.get(kind) or successors.get(kind)
        if after is None:
            yield f"{kind} is gone. Keep it, or name it in replaces of another: accepted jobs have this kind."
            continue
        if before.get("idempotent_by") != after.get("idempotent_by"):
            yield f"{kind} has another idempotent_by. Keep it: a job that runs again would repeat its side effects."
        was, is_now = before.get("version", 1), after.get("version", 1)
        if is_now < was:
            yield f"{kind} has version {is_now}, and had {was}. Never lower it: accepted jobs have the higher one."
        params = _Comparison(before["params_schema"], after["params_schema"], defaults_matter=True)
        for fault in params.faults(params.giving, params.taking, ""):
            if is_now > was and after.get("upgrades"):
                continue  # upgrade() gives what was accepted this form
            yield (
                f"{kind}: the parameter {fault}. Keep what was accepted: add an optional field, or a new kind; or set "
                f"version={was + 1} and write upgrade()."
            )
        result = _Comparison(after["result_schema"], before["result_schema"], more_is_welcome=True)
        for fault in result.faults(result.giving, result.taking, ""):
            yield f"{kind}: of the result, {fault}. Keep what clients read: add a field, or a new kind."


@dataclass
class _Comparison:
    """Compares what one side gives with what the other takes: each value given has to be taken."""

    giving: Schema
    taking: Schema
    more_is_welcome: bool = False  # fields that the other side does not know
    defaults_matter: bool = False
    _open: set[tuple[str, str]] = field(default_factory=set)  # a schema may contain itself

    def faults(self, given: Schema, taken: Schema, at: str) -> Iterator[str]:
        """Yield where a value of the schema `given` may not be one of `taken`; `at` is the path of the field."""
        pair = (str(given.get("$ref", "")), str(taken.get("$ref", "")))
        if all(pair):
            if pair in self._open:
                return
            self._open.add(pair)
        given, taken = _resolved(given, self.giving), _resolved(taken, self.taking)
        if not taken:
            return
        given_options, taken_options = _options(given), _options(taken)
        if len(given_options) + len(taken_options) > 2:  # noqa: PLR2004 - one of each is compared further below
            for option in given_options:
                if all(any(self.faults(option, other, at)) for other in taken_options):
                    yield self._changed(at, option, taken)
            return
        if _is_narrower(taken, given):
            yield self._changed(at, given, taken)
            return
        if isinstance(given.get("items"), dict) and isinstance(taken.get("items"), dict):
            yield from self.faults(given["items"], taken["items"], f"{at}[]")
        more, others = given.get("additionalProperties"), taken.get("additionalProperties")
        if isinstance(more, dict) and isinstance(others, dict):
            yield from self.faults(more, others, f"{at}.*")
        yield from self._fields(given, taken, at)

    def _fields(self, given: Schema, taken: Schema, at: str) -> Iterator[str]:
        has, knows = given.get("properties", {}), taken.get("properties", {})
        for name in sorted(knows.keys() & has.keys()):
            path = _below(at, name)
            yield from self.faults(has[name], knows[name], path)
            defaults = [field["default"] for field in (has[name], knows[name]) if "default" in field]
            if self.defaults_matter and len(defaults) == 2 and defaults[0] != defaults[1]:  # noqa: PLR2004 - both have one
                yield f"{path} has the default {defaults[1]!r}, which was {defaults[0]!r}"
        for name in sorted(has.keys() - knows.keys()):
            if not self.more_is_welcome and taken.get("additionalProperties") is False:
                yield f"{_below(at, name)} is gone"
        for name in sorted(set(taken.get("required", ())) - set(given.get("required", ()))):
            path = _below(at, name)
            yield f"{path} may be missing" if self.more_is_welcome else f"{path} is required"

    def _changed(self, at: str, given: Schema, taken: Schema) -> str:
        old, new = (taken, given) if self.more_is_welcome else (given, taken)
        return f"{at} was {_brief(old)} and is {_brief(new)}"


def _resolved(schema: Schema, document: Schema) -> Schema:
    while reference := schema.get("$ref"):
        schema = document["$defs"][reference.rpartition("/")[2]]
    return {name: value for name, value in schema.items() if name not in _NOTES}


def _options(schema: Schema) -> list[Schema]:
    several: list[Schema] | None = schema.get("anyOf") or schema.get("oneOf")
    return several or [schema]


def _is_narrower(taken: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Return whether a value of the schema `given` may be refused by `taken`, apart from what is inside of it."""
    types = (given.get("type"), taken.get("type"))
    if types[1] is not None and types[0] != types[1] and types != ("integer", "number"):
        return True
    values = _values(taken)
    if values is not None and not ((known := _values(given)) and set(known) <= set(values)):
        return True
    return (
        any(name in taken and (name not in given or given[name] > taken[name]) for name in _AT_MOST)
        or any(name in taken and (name not in given or given[name] < taken[name]) for name in _AT_LEAST)
        or any(name in taken and given.get(name) != taken[name] for name in _AS_IT_IS)
    )


def _values(schema: Mapping[str, Any]) -> list[str] | None:
    """Return the only values that a schema has, as JSON texts."""
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if listed is None else [json.dumps(value) for value in listed]


def _brief(schema: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in schema.items() if name not in _NOTES | {"default"}}
    text = json.dumps(plain, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
