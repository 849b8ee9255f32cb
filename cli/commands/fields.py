"""Command-line options made from the fields of a model: from their types, bounds, defaults and descriptions."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

_TYPES = {"integer": int, "number": float, "string": str}


@dataclass(frozen=True)
class OptionsOf:
    """Mark an argument of a command: it becomes one option per field of `model`, and gets a dict of those given."""

    model: type[BaseModel]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` for Typer, with each argument that is marked with `OptionsOf` replaced by its options."""
    signature = inspect.signature(command, eval_str=True)
    options_of = {
        name: options(mark.model)
        for name, parameter in signature.parameters.items()
        for mark in get_args(parameter.annotation)
        if isinstance(mark, OptionsOf)
    }

    @functools.wraps(command)
    def call(**typed: Any) -> None:
        for name, made in options_of.items():
            values = ((option.name, typed.pop(option.name)) for option in made)
            typed[name] = {option: value for option, value in values if value not in (None, [])}
        command(**typed)

    parameters = [one for name, own in signature.parameters.items() for one in options_of.get(name, [own])]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined] # what Typer reads
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


@cache
def options(model: type[BaseModel]) -> Sequence[inspect.Parameter]:
    """Return the options of a model's fields. An option that is not given is None; the gateway applies the defaults."""
    schema = model.model_json_schema()
    return [_option(name, field, schema.get("$defs", {})) for name, field in schema["properties"].items()]


def _option(name: str, field: Mapping[str, Any], definitions: Mapping[str, Any]) -> inspect.Parameter:
    (one,) = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    repeated = one.get("type") == "array"
    item = one["items"] if repeated else one
    words = definitions[item["$ref"].rsplit("/", 1)[1]]["enum"] if "$ref" in item else ()
    typed: Any = _TYPES[item.get("type", "string")]
    option = typer.Option(
        "--" + (name.removesuffix("s") if repeated else name).replace("_", "-"),
        help=" ".join(_said(field, words)),
        metavar=f"<{item.get('format', typed.__name__)}>" + ("..." if repeated else ""),
        min=item.get("minimum"),
        max=item.get("maximum"),
    )
    kind: Any = list[typed] if repeated else typed
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _said(field: Mapping[str, Any], words: Sequence[str]) -> Iterator[str]:
    """Yield the sentences of an option's help; `words` are its permitted values, if they are listed."""
    yield field["description"]
    if words:
        yield f"One of: {', '.join(words)}."
    if (default := field.get("default")) not in (None, []):
        yield f"Default: {default}."
