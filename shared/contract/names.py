"""Types of names that a client sends: bounded, and untrusted until they match a pattern."""

from __future__ import annotations

import re
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, core_schema

from shared.contract.installed import CONNECTIONS, connection_kinds
from shared.contract.spelling import did_you_mean
from shared.errors import DefinitionError


@dataclass(frozen=True, slots=True)
class Matching:
    """Marks a text that must match `pattern` as a whole; the refusal says in `words` what it may be."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^{self.pattern}$"}

    def _checked(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"it must be {self.words}")
        return text


ConnectionName = Annotated[
    str,
    Matching(
        r"[a-z][a-z0-9_-]{0,62}",
        "1 to 63 lower-case letters, digits, '_' or '-', and begin with a letter",
    ),
    Field(description="Name of a configured connection.", examples=["warehouse"]),
]

ConnectionGroup = Literal["sql", "store", "http"]
Access = Literal["read", "write"]  # who may write may read


@dataclass(frozen=True, slots=True)
class NamesConnection:
    """Marks a field that names a connection, with the required group or a team's own kind.

    `shared.connections.settings` checks it. `access` is what a job does with it: a key may be restricted to reading.
    """

    group: str
    access: Access = "write"


@dataclass(frozen=True, slots=True)
class OnlyRead:
    """Marks a field whose value names connections that the job only reads, whatever its type says."""


def connection(kind: str, *, access: Access = "write") -> NamesConnection:
    """Return the mark of a parameter that names a connection of this kind.

        shop: Annotated[ConnectionName, connection("print_shop")]

    The kind is one that an installed package declares, or `sql`, `store` or `http`. The gateway refuses a job that
    names no connection of this kind, and one of a key that may not do with it what `access` says the job does: `read`
    it, or `write` it as well. Raises `DefinitionError` for a kind that does not exist.
    """
    if kind not in (known := [*connection_kinds(), *typing.get_args(ConnectionGroup)]):
        raise DefinitionError(
            f"connection({kind!r}): there is no such kind of connection. {did_you_mean(str(kind), known)} Declare one "
            f"of your own as an entry point of {CONNECTIONS} in pyproject.toml, and install the package."
        )
    return NamesConnection(kind, access)


SqlConnectionName = Annotated[ConnectionName, NamesConnection("sql")]
StoreConnectionName = Annotated[ConnectionName, NamesConnection("store")]
ReadSqlConnectionName = Annotated[ConnectionName, NamesConnection("sql", "read")]
ReadStoreConnectionName = Annotated[ConnectionName, NamesConnection("store", "read")]
HttpConnectionName = Annotated[ConnectionName, NamesConnection("http", "read")]

TableName = Annotated[
    str,
    Matching(
        r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?",
        "'table' or 'schema.table', each of 1 to 63 letters, digits or '_' and not beginning with a digit",
    ),
    Field(description="`table` or `schema.table`.", examples=["sales", "public.sales"]),
]


def printable(name: str) -> str:
    """Return `name` if all its characters are printable. Raises `ValueError`."""
    if not name.isprintable():
        raise ValueError("a name must have printable characters only")
    return name


ColumnName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=255),
    AfterValidator(printable),
    Field(description="Name of a column, exactly as in the data.", examples=["category"]),
]


def _below_root(path: str) -> str:
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError("a path must be relative to the store's root, without '.', '..' or empty parts")
    return path


StorePath = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9_.=@ -][A-Za-z0-9_.=@ /-]{0,510}",
        "1 to 511 letters, digits, spaces or any of _ . = @ / -, and not begin with '/'",
    ),
    AfterValidator(_below_root),
    Field(description="Path below a store's root.", examples=["exports/2026/sales.parquet"]),
]
