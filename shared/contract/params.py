"""Models that a client sends: strict, without extra fields; and the JSON Schema of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic_core import CoreSchema

_MARK = "x-component"
_WHOLE = ""  # no definition has this name
_OF_THE_PLACE = frozenset(("title", "description", "default", "examples", "deprecated"))


class Params(BaseModel):
    """Base of models that a client sends: strict, without extra fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return the same object, which nobody changes: Pydantic copies a default for every job that it is used in."""
        return self


@dataclass(frozen=True, slots=True)
class Component:
    """Marks a type that has a JSON Schema of its own name, instead of being written out wherever it is used.

    A `TypeAliasType` would do, but Pydantic 2.14 ignores the discriminator of a union that contains itself by name.
    """

    name: str

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), _MARK: self.name}


def schema_of(model: type[BaseModel], mode: Literal["validation", "serialization"] = "validation") -> dict[str, Any]:
    """Return the JSON Schema of a model, with each `Component` once in its `$defs`."""
    schema = model.model_json_schema(mode=mode)
    definitions = schema.pop("$defs", {})
    definitions = with_components({**definitions, _WHOLE: schema}, "#/$defs/{model}")
    whole: dict[str, Any] = definitions.pop(_WHOLE)
    return {**whole, **({"$defs": definitions} if definitions else {})}


def with_components(definitions: Mapping[str, Any], template: str) -> dict[str, Any]:
    """Return definitions of JSON Schemas with a reference in place of each `Component`, which is one more definition.

    `template` makes a reference of a name, as ``#/components/schemas/{model}``.
    """
    found: dict[str, Any] = {}

    def referring(value: Any) -> Any:
        if isinstance(value, list):
            return [referring(item) for item in value]
        if not isinstance(value, dict):
            return value
        made = {key: referring(item) for key, item in value.items() if key != _MARK}
        name = value.get(_MARK)
        if not isinstance(name, str):
            return made
        found[name] = {key: item for key, item in made.items() if key not in _OF_THE_PLACE}
        kept = {key: item for key, item in made.items() if key in _OF_THE_PLACE and key != "title"}
        return {"$ref": template.format(model=name), **kept}

    own = {name: referring(item) for name, item in definitions.items()}
    return {**own, **found}
