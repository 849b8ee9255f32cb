"""Keep the definition of a table of DuckDB, and make the table again under another name.

DuckDB shows a statement for each table and index. A DuckDB in memory that reaches no file runs it, and shows it again:
so it is a single statement that makes a table, whatever the file said from which it came.
"""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING

import duckdb

from worker.tables.databases.definitions import (
    Defined,
    DuckdbTable,
    ForeignKey,
    Sequence,
    free_name,
    named_for,
    not_restorable,
)
from worker.tables.duck.session import connect, lock
from worker.tables.parquet.columns import quoted, text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from worker.tables.databases.base import Transaction

_NAME = r"""(?:"(?:[^"]|"")*"|[^\s".(]+)"""
_PATH = rf"(?:{_NAME}\.)*{_NAME}"
_TABLE = re.compile(rf"CREATE TABLE {_PATH}(?P<body>\(.*\));?", re.DOTALL)
_INDEX = re.compile(rf"CREATE (?P<unique>UNIQUE )?INDEX (?P<name>{_NAME}) ON {_PATH}(?P<body>\(.*\));?", re.DOTALL)
_MEMORY_BYTES = 64 * 1024**2
_HERE = "database_name = current_database() AND lower(schema_name) = lower(?) AND lower(table_name) = lower(?)"


def define(transaction: Transaction, table: str, among: Collection[str]) -> Defined:
    """Return the definition of a table. Raises `TaskFailure` for one that DuckDB would not make again."""
    place = _place(table)
    made = transaction.rows(f"SELECT sql, comment FROM duckdb_tables() WHERE {_HERE}", *place)  # noqa: S608 - a constant of ours
    if not made:
        there = transaction.rows(f"SELECT 1 FROM duckdb_columns() WHERE {_HERE}", *place)  # noqa: S608 - a constant of ours
        return Defined(
            None, left_out=[f"{table} is not a plain table: a new one has only its columns"] if there else []
        )
    statement, foreign_keys, left_out = made[0][0], [], []
    by_place = {tuple(part.lower() for part in _place(one)): one for one in among}
    for definition_text, name, columns, referenced, referenced_columns in transaction.rows(
        "SELECT constraint_text, constraint_name, constraint_column_names, referenced_table, referenced_column_names "  # noqa: S608 - a constant of ours
        f"FROM duckdb_constraints() WHERE constraint_type = 'FOREIGN KEY' AND {_HERE}",
        *place,
    ):
        statement = statement.replace(f", {definition_text}", "", 1)
        parent = by_place.get((place[0].lower(), referenced.lower()))
        if parent is None:
            left_out.append(f"the foreign key {name!r} of {table} to {referenced}, which is not in the backup")
        else:
            foreign_keys.append(ForeignKey(name=name, columns=columns, table=parent, referenced=referenced_columns))
    definition = DuckdbTable(
        statement=statement,
        indexes=[sql for (sql,) in transaction.rows(f"SELECT sql FROM duckdb_indexes() WHERE {_HERE}", *place)],  # noqa: S608 - a constant of ours
        foreign_keys=foreign_keys,
        sequences=_sequences(transaction, place),
        comment=made[0][1],
        comments=dict(
            transaction.rows(
                f"SELECT column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL AND {_HERE}",  # noqa: S608 - a constant of ours
                *place,
            )
        ),
    )
    _shown_again(definition, table)
    return Defined(definition, frozenset(key.table for key in foreign_keys) - {table}, left_out)


def create(transaction: Transaction, definition: DuckdbTable, table: str, names: Mapping[str, str]) -> None:
    """Create the table without its indexes, and the sequences that it lacks; foreign keys follow `names`."""
    for one in definition.sequences:
        start = one.start if one.last is None else one.last + one.increment
        bounded = start if one.smallest <= start <= one.largest else one.start
        transaction.change(
            f"CREATE SEQUENCE IF NOT EXISTS {transaction.dialect.target(one.name)} INCREMENT BY {one.increment} "
            f"MINVALUE {one.smallest} MAXVALUE {one.largest} START {bounded} {'' if one.cycles else 'NO '}CYCLE"
        )
    body, _ = _shown_again(definition, table)
    for key in definition.foreign_keys:
        if (parent := names.get(key.table)) is not None:
            columns, referenced = (", ".join(map(quoted, one)) for one in (key.columns, key.referenced))
            parent = parent if _place(parent)[0] != "main" else _place(parent)[1]
            body = (
                f"{body.removesuffix(')')}, FOREIGN KEY ({columns}) "
                f"REFERENCES {transaction.dialect.target(parent)} ({referenced}))"
            )
    transaction.change(f"CREATE TABLE {transaction.dialect.target(table)} {body}")


def complete(transaction: Transaction, definition: DuckdbTable, table: str) -> None:
    """Create the indexes and the comments."""
    target = transaction.dialect.target(table)
    taken = {one.lower() for (one,) in transaction.rows("SELECT index_name FROM duckdb_indexes()")}
    for index, unique, body in _shown_again(definition, table)[1]:
        transaction.change(f"CREATE {unique}INDEX {quoted(free_name(index, taken, 1_000))} ON {target} {body}")
    if definition.comment is not None:
        transaction.change(f"COMMENT ON TABLE {target} IS {text(definition.comment)}")
    for column, comment in definition.comments.items():
        transaction.change(f"COMMENT ON COLUMN {target}.{quoted(column)} IS {text(comment)}")


def _shown_again(definition: DuckdbTable, table: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the columns of the table, and the name, the word UNIQUE and the rest of each index, as DuckDB shows it."""
    try:
        with closing(connect(":memory:", memory_limit_bytes=_MEMORY_BYTES, threads=1)) as empty:
            lock(empty)
            for one in definition.sequences:
                schema, name = map(quoted, _place(one.name))
                _only(empty, f"CREATE SCHEMA IF NOT EXISTS {schema}")
                _only(empty, f"CREATE SEQUENCE {schema}.{name}")
            _only(empty, f"CREATE TABLE t {_part(_TABLE, definition.statement)['body']}")
            indexes = [_part(_INDEX, one) for one in definition.indexes]
            for at, index in enumerate(indexes):
                _only(empty, f"CREATE {index['unique'] or ''}INDEX i{at} ON t {index['body']}")
            ((shown,),) = empty.execute("SELECT sql FROM duckdb_tables()").fetchall()
            bodies = dict(empty.execute("SELECT index_name, sql FROM duckdb_indexes()").fetchall())
    except (duckdb.Error, ValueError) as refused:
        raise not_restorable(f"The table {table!r}", f"DuckDB does not make it again: {refused}") from None
    old = _part(re.compile(rf"CREATE TABLE (?:{_NAME}\.)*(?P<name>{_NAME})\(.*", re.DOTALL), definition.statement)[
        "name"
    ]
    named = named_for(_unquoted(old), _place(table)[1])
    return _part(_TABLE, shown)["body"], [
        (
            named(_unquoted(index["name"])),
            index["unique"] or "",
            _part(_INDEX, bodies[f"i{at}"])["body"],
        )
        for at, index in enumerate(indexes)
    ]


def _only(empty: duckdb.DuckDBPyConnection, statement: str) -> None:
    (only,) = empty.extract_statements(statement)  # ValueError: too many
    if only.type != duckdb.StatementType.CREATE:
        raise ValueError("it is not a definition")
    empty.execute(only)


def _part(pattern: re.Pattern[str], statement: str) -> re.Match[str]:
    found = pattern.fullmatch(statement)
    if found is None:
        raise ValueError("its statement is not as DuckDB writes it")
    return found


def _sequences(transaction: Transaction, place: tuple[str, str]) -> list[Sequence]:
    """Return the sequences that the defaults of the table name."""
    defaults = [
        default
        for (default,) in transaction.rows(
            f"SELECT column_default FROM duckdb_columns() WHERE column_default IS NOT NULL AND {_HERE}",  # noqa: S608 - a constant of ours
            *place,
        )
    ]
    found = []
    for schema, name, start, smallest, largest, increment, cycles, last in transaction.rows(
        "SELECT schema_name, sequence_name, start_value, min_value, max_value, increment_by, cycle, last_value "
        "FROM duckdb_sequences() WHERE database_name = current_database()"
    ):
        full = name if schema == "main" else f"{schema}.{name}"
        spelled = {
            f"nextval({text(one)})" for one in (name, f"{schema}.{name}", quoted(name), f"{schema}.{quoted(name)}")
        }
        if any(one in default for one in spelled for default in defaults):
            counts = {"start": start, "smallest": smallest, "largest": largest, "increment": increment}
            found.append(Sequence(name=full, cycles=cycles, last=last, **counts))
    return found


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _place(table: str) -> tuple[str, str]:
    schema, _, name = table.rpartition(".")
    return schema or "main", name
