"""Read settings from environment variables. A wrong one is named as it was set, and as docs/settings.md names it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BeforeValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsError

from shared.errors import DefinitionError
from shared.texts import by_commas, redact

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


def _parts(value: object) -> object:
    return by_commas(value) if isinstance(value, str) else value


#: A field that its variable has as one text, with commas between the parts.
ByCommas = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]

_LONGEST_VALUE = 100  # characters of a value in a message


def read(settings: type[SettingsT], **given: Any) -> SettingsT:
    """Return `settings` of this process; fields that are `given` do not come from its environment.

    Raises `DefinitionError` that names each wrong variable, a line for each.
    """
    try:
        return settings(**given)
    except ValidationError as wrong:
        refused = "\n".join(_sentence(settings, error) for error in wrong.errors(include_url=False))
    except SettingsError as wrong:
        refused = redact(str(wrong))
    raise DefinitionError(refused)


@contextmanager
def refusal_ends_the_program() -> Iterator[None]:
    """Turn a `DefinitionError` into a message on standard error and exit code 1: a stack trace would hide it."""
    try:
        yield
    except DefinitionError as refused:
        sys.exit(f"Not started: {refused}")


def variables_of(settings: type[BaseSettings], field: str) -> list[str]:
    """Return the environment variables of a field, the documented one first."""
    alias = settings.model_fields[field].validation_alias
    others = alias.choices if isinstance(alias, AliasChoices) else [alias] if alias else []
    named = [str(other) for other in others if str(other).isupper()]
    return [*named, f"{settings.model_config.get('env_prefix', '')}{field}".upper()]


def _sentence(settings: type[BaseSettings], error: Any) -> str:
    said = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    field = _field_of(settings, error["loc"])
    if field is None:  # of several together: the text names them
        return said
    documented, info = variables_of(settings, field), settings.model_fields[field]
    name = next((variable for variable in os.environ if variable.upper() in documented), documented[0])
    also = f" ({documented[0]} in docs/settings.md)" if name != documented[0] else ""
    if error["type"] == "value_error":
        return said if name in said else f"{name}{also}: {said}"
    value = "" if info.annotation is SecretStr else f"={redact(os.environ.get(name, ''))[:_LONGEST_VALUE]!r}"
    return f"{name}{value}{also} {said}. It means: {info.description}"


def _field_of(settings: type[BaseSettings], loc: Sequence[int | str]) -> str | None:
    """Return the field of an error, which Pydantic names by field or variable, in any case."""
    place = str(loc[0]) if loc else ""
    fields = settings.model_fields
    return next((name for name in fields if place == name or place.upper() in variables_of(settings, name)), None)
