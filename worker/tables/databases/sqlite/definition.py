"""Keep the definition of a table of SQLite, and make the table again under another name.

SQLite keeps the text of each statement. An empty database in memory runs it, allowed to make a table and its indexes
and nothing else, renames the table and those that its foreign keys are for, and then has the text for the new names.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from worker.tables.databases.definitions import Defined, SqliteTable, free_name, named_for, not_restorable
from worker.tables.databases.sqlite.reading import look
from worker.tables.parquet.columns import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from worker.tables.databases.base import Transaction

_ALLOWED = {
    sqlite3.SQLITE_CREATE_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_REINDEX, sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION,
}  # fmt: skip
_NAME = r"""(?:"(?:[^"]|"")*"|'(?:[^']|'')*'|`(?:[^`]|``)*`|\[[^\]]*\]|[^\s"'`\[(]+)"""
_INDEX = re.compile(rf"(?P<create>CREATE (?:UNIQUE )?INDEX )(?P<name>{_NAME})(?P<rest>.*)", re.DOTALL)
_ASIDE = "celeriac_aside_"


def define(transaction: Transaction, table: str, among: Collection[str]) -> Defined:
    """Return the definition of a table. Raises `TaskFailure` for one that SQLite would not make again."""
    name = _bare(table)
    objects = transaction.rows(
        "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ? COLLATE NOCASE ORDER BY name", name
    )
    made = next((one for one in objects if one[0] in {"table", "view"}), None)
    if made is None or made[0] == "view" or made[2].upper().startswith("CREATE VIRTUAL"):
        return Defined(None, left_out=[f"{table} is not a plain table: a new one has only its columns"] if made else [])
    _refuse_mixed(transaction, table)
    definition = SqliteTable(
        statement=made[2],
        indexes=[sql for kind, _, sql in objects if kind == "index" and sql],
        counter=_counter(transaction, made[1]),
    )
    _made_again(definition, name, {})
    found = transaction.rows('SELECT DISTINCT "table" FROM pragma_foreign_key_list(?)', name)
    parents = {parent.lower() for (parent,) in found if parent.lower() != name.lower()}
    left_out = [f"the trigger {one!r} of {table}" for kind, one, _ in objects if kind == "trigger"]
    return Defined(definition, frozenset(one for one in among if _bare(one).lower() in parents), left_out)


def create(transaction: Transaction, definition: SqliteTable, table: str, names: Mapping[str, str]) -> None:
    """Create the table without its indexes; foreign keys to a key of `names` become those to its value."""
    statement, _ = _made_again(definition, _bare(table), names)
    transaction.change(statement)


def complete(transaction: Transaction, definition: SqliteTable, table: str) -> None:
    """Create the indexes, and let the numbers of AUTOINCREMENT go on after those that were given."""
    name = _bare(table)
    _, indexes = _made_again(definition, name, {})
    taken = {one.lower() for (one,) in transaction.rows("SELECT name FROM sqlite_master")}
    for index, (create_index, rest) in indexes.items():
        transaction.change(f"{create_index}{quoted(free_name(index, taken, 1_000))}{rest}")
    if definition.counter is not None:
        advance = "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?"
        if not transaction.change(advance, definition.counter, name):
            transaction.change("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", name, definition.counter)


def _made_again(definition: SqliteTable, name: str, names: Mapping[str, str]) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return the statement of the table under its new name, and those of its indexes, around their names, by name."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        empty.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        try:
            for statement in (definition.statement, *definition.indexes):
                empty.execute(statement)
            empty.set_authorizer(None)
            ((old,),) = empty.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite@_%' ESCAPE '@'"
            )
            others = {_bare(one): _bare(new) for one, new in names.items() if _bare(one).lower() != old.lower()}
            renamed = {old.lower(): name, **others}
            for at, one in enumerate(renamed):  # in two steps: names may be exchanged
                if one != old.lower():
                    empty.execute(f"CREATE TABLE {quoted(one)} (x)")
                empty.execute(f"ALTER TABLE {quoted(one)} RENAME TO {_ASIDE}{at}")
            for at, new in enumerate(renamed.values()):
                empty.execute(f"ALTER TABLE {_ASIDE}{at} RENAME TO {quoted(new)}")
        except (sqlite3.Error, ValueError) as refused:
            raise not_restorable(f"The table {name!r}", f"SQLite does not make it again: {refused}") from None
        found = empty.execute("SELECT type, name, sql FROM sqlite_master WHERE tbl_name = ?", (name,)).fetchall()
    statement = next(sql for kind, _, sql in found if kind == "table")
    parts = {one: _INDEX.fullmatch(sql) for kind, one, sql in found if kind == "index" and sql}
    return statement, {
        named_for(old, name)(one): (part["create"], part["rest"]) for one, part in parts.items() if part is not None
    }


def _counter(transaction: Transaction, name: str) -> int | None:
    if not transaction.rows("SELECT 1 FROM sqlite_master WHERE name = 'sqlite_sequence'"):
        return None
    counts = transaction.rows("SELECT seq FROM sqlite_sequence WHERE name = ?", name)
    return int(counts[0][0]) if counts and counts[0][0] is not None else None


def _refuse_mixed(transaction: Transaction, table: str) -> None:
    """Raise `TaskFailure` for a column whose values have no type but text in common: they would stay texts."""
    name = _bare(table)
    declared = transaction.rows("SELECT name, upper(type) FROM pragma_table_xinfo(?) WHERE hidden <> 1", name)
    for column in look(transaction.rows, f"SELECT * FROM {quoted(name)}", declared):  # noqa: S608 - a quoted name
        if column.is_mixed:
            raise not_restorable(
                f"The column {column.name!r} of {table}",
                "it has texts in some rows and numbers in others, or fractions and integers that no float is equal to",
            )


def _bare(table: str) -> str:
    return table.rpartition(".")[2]
