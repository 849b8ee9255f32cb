"""Keep the definition of a table of PostgreSQL, and make the table again under another name.

It is read with an empty search path, so that types and functions are named with their schemas.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from adbc_driver_manager import dbapi as adbc

from worker.tables.databases.definitions import (
    Defined,
    ForeignKey,
    Named,
    PostgresqlColumn,
    PostgresqlTable,
    Sequence,
    free_name,
    named_for,
    not_restorable,
    single_expression,
)
from worker.tables.parquet.columns import quoted, text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from worker.tables.databases.base import Transaction

_TABLE = """
    SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition,
           EXISTS (SELECT 1 FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
           EXISTS (SELECT 1 FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid),
           pg_catalog.obj_description(c.oid, 'pg_class')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(?)
"""
_COLUMNS = """
    SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod),
           CASE WHEN a.attcollation <> t.typcollation THEN n.nspname::text END, c.collname::text, a.attnotnull,
           pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
           pg_catalog.pg_get_serial_sequence(pg_catalog.format('%I.%I', ?::text, ?::text), a.attname::text),
           pg_catalog.col_description(a.attrelid, a.attnum)
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
         LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
    WHERE a.attrelid = ?::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_SEQUENCE = """
    SELECT pg_catalog.format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
           s.seqcycle, (SELECT v.last_value FROM pg_catalog.pg_sequences v
                        WHERE pg_catalog.format('%I.%I', v.schemaname, v.sequencename)::regclass = s.seqrelid)
    FROM pg_catalog.pg_sequence s WHERE s.seqrelid = ?::regclass
"""
_CONSTRAINTS = """
    SELECT conname::text, pg_catalog.pg_get_constraintdef(oid), pg_catalog.obj_description(oid, 'pg_constraint')
    FROM pg_catalog.pg_constraint WHERE conrelid = ?::oid AND contype IN ('p', 'u', 'c', 'x')
    ORDER BY contype <> 'c', contype <> 'p', conname
"""
_INDEXES = """
    SELECT c.relname::text, i.indisunique, pg_catalog.pg_get_indexdef(i.indexrelid),
           pg_catalog.format('CREATE %sINDEX %I ON %s%I.%I USING ', CASE WHEN i.indisunique THEN 'UNIQUE ' END,
                             c.relname, CASE WHEN c.relkind = 'I' THEN 'ONLY ' END, ?::text, ?::text),
           pg_catalog.obj_description(c.oid, 'pg_class')
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = ?::oid AND NOT EXISTS
          (SELECT 1 FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
    ORDER BY c.relname
"""
_FOREIGN_KEYS = """
    SELECT k.conname::text, own.names, other.names, k.confrelid::bigint, k.confrelid::regclass::text,
           pg_catalog.pg_get_constraintdef(k.oid),
           pg_catalog.format('FOREIGN KEY (%s) REFERENCES %s(%s)', own.listed, k.confrelid::regclass, other.listed)
    FROM pg_catalog.pg_constraint k,
         LATERAL (SELECT array_agg(a.attname::text ORDER BY u.position) AS names,
                         string_agg(quote_ident(a.attname), ', ' ORDER BY u.position) AS listed
                  FROM unnest(k.conkey) WITH ORDINALITY AS u (number, position)
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number) AS own,
         LATERAL (SELECT array_agg(a.attname::text ORDER BY u.position) AS names,
                         string_agg(quote_ident(a.attname), ', ' ORDER BY u.position) AS listed
                  FROM unnest(k.confkey) WITH ORDINALITY AS u (number, position)
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number) AS other
    WHERE k.conrelid = ?::oid AND k.contype = 'f' AND k.conparentid = 0 ORDER BY k.conname
"""
_OTHERS = """
    SELECT 'the trigger ', tgname::text FROM pg_catalog.pg_trigger WHERE tgrelid = ?::oid AND NOT tgisinternal
    UNION ALL SELECT 'the rule ', rulename::text FROM pg_catalog.pg_rewrite
    WHERE ev_class = ?::oid AND rulename <> '_RETURN'
    UNION ALL SELECT 'the policy ', polname::text FROM pg_catalog.pg_policy WHERE polrelid = ?::oid ORDER BY 1, 2
"""
_OPTIONS = re.compile(
    r"( MATCH FULL)?( ON UPDATE (CASCADE|RESTRICT|SET NULL|SET DEFAULT))?( ON DELETE (CASCADE|RESTRICT|(SET NULL|SET "
    r"DEFAULT)( \([^()]*\))?))?( NOT)?( DEFERRABLE)?( INITIALLY (DEFERRED|IMMEDIATE))?( NOT VALID)?"
)
_CALL = re.compile(r'([A-Za-z_]\w*|"(?:[^"]|"")+")\s*\(')
_KEYS = ("PRIMARY KEY ", "UNIQUE ", "EXCLUDE ")
_IDENTITY = {"a": "ALWAYS", "d": "BY DEFAULT"}
_PARTITIONED = "p"
_LOCKABLE = {"r", _PARTITIONED}


def define(transaction: Transaction, table: str, among: Collection[str]) -> Defined:
    """Return the definition of a table, locked against changes of it, with foreign keys to the tables of `among`.

    Raises `TaskFailure` for a table that takes its rows from others, and for what could not be made again.
    """
    own = transaction.rows(_TABLE, transaction.dialect.target(table))
    if not own:
        return Defined(None)
    (oid, schema, name, kind, is_partition, has_children, has_parents, comment) = own[0]
    if kind in _LOCKABLE:
        transaction.change(f"LOCK TABLE {transaction.dialect.target(table)} IN ACCESS SHARE MODE")
    if has_children and kind != _PARTITIONED:
        raise not_restorable(f"The table {table}", "other tables inherit from it, and its rows may be theirs")
    plain = kind in _LOCKABLE
    known = {oid: one for one in among for oid in _oids(transaction, one)}
    path = transaction.rows("SELECT current_setting('search_path')")[0][0]
    transaction.rows("SELECT set_config('search_path', '', true)")
    try:
        columns = [_column(transaction, one) for one in transaction.rows(_COLUMNS, schema, name, oid)]
        checks, left_out = _checked(transaction, table, transaction.rows(_CONSTRAINTS, oid))
        indexes = [
            Named(
                name=index, unique=unique, text=_after(prefix, shown, f"The index {index!r} of {table}"), comment=said
            )
            for index, unique, shown, prefix, said in transaction.rows(_INDEXES, schema, name, oid)
        ]
        keys, lost = _foreign_keys(table, known, transaction.rows(_FOREIGN_KEYS, oid)) if plain else ([], [])
        others = [f"{what}{one!r} of {table}" for what, one in transaction.rows(_OTHERS, oid, oid, oid)]
    finally:
        transaction.rows("SELECT set_config('search_path', ?, true)", path)
    if not plain:
        columns, others = [one.model_copy(update={"default": None}) for one in columns], []
        left_out.append(f"{table} is not a plain table: a new one has only its columns")
    if kind == _PARTITIONED or is_partition or has_parents:
        left_out.append(f"{table} is a part of others, or has parts: a new one is a table of its own")
    definition = PostgresqlTable(
        columns=columns, constraints=checks, indexes=indexes, foreign_keys=keys, comment=comment
    )
    _refuse_doubtful(definition, table)
    return Defined(definition, frozenset(key.table for key in keys if key.table != table), [*left_out, *lost, *others])


def create(transaction: Transaction, definition: PostgresqlTable, table: str, source: str) -> None:
    """Create the table with its columns and checks; the rest is made faster with the rows in it."""
    _refuse_doubtful(definition, table)
    target, taken = transaction.dialect.target(table), _taken(transaction, table)
    serial = [_serial(transaction, table, column, taken) for column in definition.columns if _is_serial(column)]
    given = dict(serial)
    checks = [one for one in definition.constraints if not one.text.startswith(_KEYS)]
    _, volatile = _checked(transaction, table, [(one.name, one.text, None) for one in checks])
    if volatile:
        raise not_restorable(f"The table {table}", volatile[0])
    parts = [_declared(transaction, table, column, given.get(column.name)) for column in definition.columns]
    named = named_for(source, table)
    parts += [f"CONSTRAINT {quoted(named(one.name))} {one.text}" for one in checks]
    transaction.change(f"CREATE TABLE {target} ({', '.join(parts)})")
    for column, sequence in serial:
        transaction.change(f"ALTER SEQUENCE {sequence} OWNED BY {target}.{quoted(column)}")


def complete(transaction: Transaction, definition: PostgresqlTable, table: str, source: str) -> None:
    """Create keys, indexes and comments, and let the sequences go on after the numbers that they gave.

    `source` is the table's name in the backup. Names of indexes that are taken get another end.
    """
    target, taken = transaction.dialect.target(table), _taken(transaction, table)
    named = named_for(source, table)
    for one in definition.constraints:
        name = named(one.name)
        if one.text.startswith(_KEYS):
            name = free_name(name, taken)
            transaction.change(f"ALTER TABLE {target} ADD CONSTRAINT {quoted(name)} {one.text}")
        if one.comment:
            transaction.change(f"COMMENT ON CONSTRAINT {quoted(name)} ON {target} IS {text(one.comment)}")
    schema = table.rpartition(".")[0]
    for one in definition.indexes:
        name = quoted(free_name(named(one.name), taken))
        transaction.change(f"CREATE {'UNIQUE ' if one.unique else ''}INDEX {name} ON {target} USING {one.text}")
        if one.comment:
            placed = f"{quoted(schema)}.{name}" if schema else name
            transaction.change(f"COMMENT ON INDEX {placed} IS {text(one.comment)}")
    if definition.comment:
        transaction.change(f"COMMENT ON TABLE {target} IS {text(definition.comment)}")
    for column in definition.columns:
        if column.comment:
            transaction.change(f"COMMENT ON COLUMN {target}.{quoted(column.name)} IS {text(column.comment)}")
        if column.sequence is not None and column.sequence.last is not None:
            transaction.rows(
                "SELECT setval(pg_get_serial_sequence(?, ?)::regclass, ?::bigint)",
                target, column.name, column.sequence.last,
            )  # fmt: skip


def relate(
    transaction: Transaction,
    definition: PostgresqlTable,
    table: str,
    source: str,
    names: Mapping[str, str],
) -> None:
    """Create the foreign keys to the tables of `names`, old names to new ones, when all have their rows and keys."""
    target, named = transaction.dialect.target(table), named_for(source, table)
    for key in definition.foreign_keys:
        if key.table in names:
            columns, referenced = (", ".join(map(quoted, one)) for one in (key.columns, key.referenced))
            transaction.change(
                f"ALTER TABLE {target} ADD CONSTRAINT {quoted(named(key.name))} FOREIGN KEY ({columns}) "
                f"REFERENCES {transaction.dialect.target(names[key.table])} ({referenced}){key.options}"
            )


def _column(transaction: Transaction, row: tuple[Any, ...]) -> PostgresqlColumn:
    (name, kind, collation_schema, collation, not_null, default, identity, generated, sequence, comment) = row
    counts = None
    if sequence is not None and (identity or default == f"nextval({text(sequence)}::regclass)"):
        numbers = transaction.rows(_SEQUENCE, sequence)[0]
        fields = ("type", "start", "increment", "smallest", "largest", "cache", "cycles", "last")
        counts = Sequence(**dict(zip(fields, numbers, strict=True)))
    return PostgresqlColumn.model_validate(
        {
            "name": name,
            "type": kind,
            "collation": [collation_schema, collation] if collation_schema else [],
            "not_null": not_null,
            "default": None if generated or counts else default,
            "identity": _IDENTITY.get(identity),
            "generated": default if generated else None,
            "sequence": counts,
            "comment": comment,
        }
    )


def _checked(transaction: Transaction, table: str, found: Iterable[tuple[Any, ...]]) -> tuple[list[Named], list[str]]:
    """Return the constraints without the checks that call functions which may do anything, and the names of those."""
    kept, left_out = [], []
    for name, shown, comment in found:
        calls = sorted({_unquoted(one) for one in _CALL.findall(shown)}) if shown.startswith("CHECK ") else []
        marks = ", ".join("?" * len(calls))
        volatile = calls and transaction.rows(
            f"SELECT proname::text FROM pg_catalog.pg_proc WHERE provolatile = 'v' AND proname IN ({marks}) LIMIT 1",  # noqa: S608 - marks
            *calls,
        )
        if volatile:
            left_out.append(f"the check {name!r} of {table}: its function {volatile[0][0]!r} is volatile")
        else:
            kept.append(Named(name=name, text=shown, comment=comment))
    return kept, left_out


def _foreign_keys(
    table: str, known: Mapping[int, str], found: Iterable[tuple[Any, ...]]
) -> tuple[list[ForeignKey], list[str]]:
    keys, left_out = [], []
    for name, columns, referenced, parent, parent_name, shown, start in found:
        if parent in known:
            options = _after(start, shown, f"The foreign key {name!r} of {table}")
            keys.append(
                ForeignKey(name=name, columns=columns, table=known[parent], referenced=referenced, options=options)
            )
        else:
            left_out.append(f"the foreign key {name!r} of {table} to {parent_name}, which is not in the backup")
    return keys, left_out


def _refuse_doubtful(definition: PostgresqlTable, table: str) -> None:
    """Raise `TaskFailure` for a text that is not what it should be: a backup can be forged."""
    for column in definition.columns:
        for expression in (column.default, column.generated):
            single_expression(expression or "", f"The column {column.name!r} of {table}")
    for one in definition.constraints:
        if not one.text.startswith(("CHECK ", *_KEYS)):
            raise not_restorable(f"The constraint {one.name!r} of {table}", "it is of an unknown kind")
        single_expression(one.text, f"The constraint {one.name!r} of {table}")
    for one in definition.indexes:
        single_expression(one.text, f"The index {one.name!r} of {table}")
    for key in definition.foreign_keys:
        if not _OPTIONS.fullmatch(key.options):
            raise not_restorable(f"The foreign key {key.name!r} of {table}", "its options are unknown")


def _declared(transaction: Transaction, table: str, column: PostgresqlColumn, sequence: str | None) -> str:
    what = f"The column {column.name!r} of {table}"
    try:
        known = transaction.rows("SELECT to_regtype(?) IS NOT NULL", column.type)[0][0]
    except adbc.Error:  # a text that names nothing
        known = False
    if not known:
        raise not_restorable(what, f"the database has no type {column.type}")
    parts = [quoted(column.name), column.type]
    if column.collation:
        parts.append(f"COLLATE {'.'.join(map(quoted, column.collation))}")
    if column.generated is not None:
        parts.append(f"GENERATED ALWAYS AS ({column.generated}) STORED")
    elif column.identity is not None:
        parts.append(f"GENERATED {column.identity} AS IDENTITY ({_counting(column.sequence)})")
    elif sequence is not None:
        parts.append(f"DEFAULT nextval({text(sequence)}::regclass)")
    elif column.default is not None:
        parts.append(f"DEFAULT ({column.default})")
    if column.not_null:
        parts.append("NOT NULL")
    return " ".join(parts)


def _is_serial(column: PostgresqlColumn) -> bool:
    return column.sequence is not None and column.identity is None


def _serial(transaction: Transaction, table: str, column: PostgresqlColumn, taken: set[str]) -> tuple[str, str]:
    """Create the sequence of a column, and return the column and the quoted name of the sequence."""
    schema, _, name = table.rpartition(".")
    sequence = quoted(free_name(f"{name}_{column.name}_seq", taken))
    sequence = f"{quoted(schema)}.{sequence}" if schema else sequence
    kind = column.sequence.type if column.sequence is not None else "bigint"
    transaction.change(f"CREATE SEQUENCE {sequence} AS {kind} {_counting(column.sequence)}")
    return column.name, sequence


def _counting(sequence: Sequence | None) -> str:
    if sequence is None:
        return "INCREMENT BY 1"
    return (
        f"INCREMENT BY {sequence.increment} MINVALUE {sequence.smallest} MAXVALUE {sequence.largest} "
        f"START WITH {sequence.start} CACHE {sequence.cache} {'' if sequence.cycles else 'NO '}CYCLE"
    )


def _after(start: str, shown: str, what: str) -> str:
    if not shown.startswith(start):
        raise not_restorable(what, f"PostgreSQL shows it in an unknown way: {shown}")
    return shown.removeprefix(start)


def _oids(transaction: Transaction, table: str) -> list[int]:
    found = transaction.rows("SELECT to_regclass(?)::oid::bigint", transaction.dialect.target(table))
    return [int(oid) for (oid,) in found if oid is not None]


def _taken(transaction: Transaction, table: str) -> set[str]:
    """Return the names of tables, indexes and sequences in the schema of a table, in lower case."""
    schema = table.rpartition(".")[0]
    found = transaction.rows(
        "SELECT lower(c.relname::text) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
        "ON n.oid = c.relnamespace WHERE n.nspname = coalesce(nullif(?, ''), current_schema())",
        schema,
    )
    return {name for (name,) in found}


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
