"""What a table is beside its rows, as a backup keeps it: types, defaults, keys, indexes, checks, numbers, comments.

A definition may come from a file that a client has written. So names are quoted where they are used, a type has to be
one for the server, and an expression is a single one: SQLite's and DuckDB's statements run in an empty database in
memory that may do nothing else, and what that one then has is made; PostgreSQL's pass `single_expression`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.contract.names import TableName
from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Callable

_MODEL = ConfigDict(extra="forbid", frozen=True)
_MOST = 2_000
#: The opaque parts of an expression of PostgreSQL, then what would begin another statement or a comment.
_TOKEN = re.compile(
    r"""(?P<opaque>\b[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<other>--|/\*|\$\w*\$|.)""", re.DOTALL
)
_REFUSED = {"--", "/*", ";", "'", '"', "\0"}


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it has a NUL character")
    return text


Name = Annotated[str, StringConstraints(min_length=1, max_length=1_000), AfterValidator(_without_nul)]
Sql = Annotated[str, StringConstraints(min_length=1, max_length=1_000_000), AfterValidator(_without_nul)]
Comment = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_without_nul)]


class ForeignKey(BaseModel):
    """A foreign key to a table of the same backup; `options` are what follows the referenced columns."""

    model_config = _MODEL

    name: Name
    columns: list[Name] = Field(min_length=1, max_length=100)
    table: TableName
    referenced: list[Name] = Field(min_length=1, max_length=100)
    options: str = Field(default="", max_length=1_000)


class Sequence(BaseModel):
    """How a sequence counts; `last` is the number that it gave last."""

    model_config = _MODEL

    name: Name = "sequence"
    type: str = Field(default="bigint", pattern=r"^(smallint|integer|bigint)$")
    start: int
    increment: int
    smallest: int
    largest: int
    cache: int = Field(default=1, ge=1)
    cycles: bool
    last: int | None = None


class SqliteTable(BaseModel):
    """A table of SQLite: the statements that SQLite keeps, and the highest number that AUTOINCREMENT gave."""

    model_config = _MODEL

    engine: Literal["SQLite"] = "SQLite"
    statement: Sql
    indexes: list[Sql] = Field(default=[], max_length=_MOST)
    counter: int | None = None


class DuckdbTable(BaseModel):
    """A table of DuckDB: the statements that DuckDB shows, without foreign keys, and the sequences of its defaults."""

    model_config = _MODEL

    engine: Literal["DuckDB"] = "DuckDB"
    statement: Sql
    indexes: list[Sql] = Field(default=[], max_length=_MOST)
    foreign_keys: list[ForeignKey] = Field(default=[], max_length=_MOST)
    sequences: list[Sequence] = Field(default=[], max_length=_MOST)
    comment: Comment | None = None
    comments: dict[Name, Comment] = Field(default={}, max_length=_MOST)


class PostgresqlColumn(BaseModel):
    """A column of PostgreSQL. `sequence` is that of an identity, or the column's own one (`serial`)."""

    model_config = _MODEL

    name: Name
    type: Name
    collation: list[Name] = Field(default=[], max_length=2)
    not_null: bool
    default: Sql | None = None
    identity: Literal["ALWAYS", "BY DEFAULT"] | None = None
    generated: Sql | None = None
    sequence: Sequence | None = None
    comment: Comment | None = None


class Named(BaseModel):
    """An index or a constraint: its name, and its definition without names of tables."""

    model_config = _MODEL

    name: Name
    unique: bool = False
    text: Sql
    comment: Comment | None = None


class PostgresqlTable(BaseModel):
    """A table of PostgreSQL."""

    model_config = _MODEL

    engine: Literal["PostgreSQL"] = "PostgreSQL"
    columns: list[PostgresqlColumn] = Field(min_length=1, max_length=_MOST)
    constraints: list[Named] = Field(default=[], max_length=_MOST)
    indexes: list[Named] = Field(default=[], max_length=_MOST)
    foreign_keys: list[ForeignKey] = Field(default=[], max_length=_MOST)
    comment: Comment | None = None


Definition = Annotated[SqliteTable | DuckdbTable | PostgresqlTable, Field(discriminator="engine")]


_Own = TypeVar("_Own", SqliteTable, DuckdbTable, PostgresqlTable)


def own(definition: Definition, kind: type[_Own]) -> _Own:
    """Return a definition of this engine. Raises `TypeError` for that of another."""
    if not isinstance(definition, kind):
        raise TypeError(f"a definition of {definition.engine}")
    return definition


@dataclass(frozen=True, slots=True)
class Defined:
    """The definition of a table, None for a view and the like, and what is not in it, for people."""

    definition: SqliteTable | DuckdbTable | PostgresqlTable | None
    parents: frozenset[str] = frozenset()
    """The tables of the backup that it has foreign keys to."""
    left_out: list[str] = field(default_factory=list)


def single_expression(text: str, what: str) -> str:
    """Return the text of an expression of PostgreSQL. Raises `TaskFailure` if it could be more than one."""
    depth = 0
    for token in _TOKEN.finditer(text):
        other = token["other"]
        if other is None:
            continue
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(other, 0)
        if depth < 0 or other in _REFUSED or (len(other) > 1) or (other == "," and not depth):
            raise not_restorable(what, "its definition is not a single expression")
    if depth:
        raise not_restorable(what, "its definition is not a single expression")
    return text


def not_restorable(what: str, why: str) -> TaskFailure:
    """Return the failure for an object that cannot be made again."""
    return TaskFailure(
        "definition_not_restorable",
        f"{what}: {why}.",
        remedy="Create the table, or what is missing, in the database and restore with the mode 'replace'.",
    )


def free_name(wanted: str, taken: set[str], longest_bytes: int = 63) -> str:
    """Return `wanted`, shortened, with a number behind it if it is among `taken`, to which it is added."""
    name, number = wanted.encode()[:longest_bytes].decode(errors="ignore"), 1
    while name.lower() in taken:
        number += 1
        end = f"_{number}"
        name = wanted.encode()[: longest_bytes - len(end)].decode(errors="ignore") + end
    taken.add(name.lower())
    return name


def named_for(source: str, table: str) -> Callable[[str], str]:
    """Return what gives the name that an index or a constraint of the table `source` has as one of `table`."""
    old, new = source.rpartition(".")[2], table.rpartition(".")[2]

    def named(name: str) -> str:
        if old == new:
            return name
        return new + name.removeprefix(old) if name.startswith(old) else f"{new}_{name}"

    return named
