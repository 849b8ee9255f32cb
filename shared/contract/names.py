"""Types of names that a client sends: bounded, and untrusted until they match a pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

ConnectionName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$"),
    Field(description="Name of a configured connection.", examples=["warehouse"]),
]

ConnectionGroup = Literal["sql", "store", "http"]


@dataclass(frozen=True, slots=True)
class NamesConnection:
    """Marks a field that names a connection, with the required group; `shared.connections.settings` checks it."""

    group: ConnectionGroup


SqlConnectionName = Annotated[ConnectionName, NamesConnection("sql")]
StoreConnectionName = Annotated[ConnectionName, NamesConnection("store")]
HttpConnectionName = Annotated[ConnectionName, NamesConnection("http")]

TableName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$"),
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
    StringConstraints(pattern=r"^[A-Za-z0-9_.=@ -][A-Za-z0-9_.=@ /-]{0,510}$"),
    AfterValidator(_below_root),
    Field(description="Path below a store's root.", examples=["exports/2026/sales.parquet"]),
]
