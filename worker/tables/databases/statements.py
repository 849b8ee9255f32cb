"""The SQL that is the same for all engines. Names are quoted in the plan's dialect; values are bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from worker.tables.databases.dialect import Dialect
    from worker.tables.databases.plan import TablePlan

STAGE = "celeriac_stage"
LEDGER = "celeriac_loads"
LEDGER_COLUMNS = """
    load_id {short_text} PRIMARY KEY, destination TEXT NOT NULL, mode TEXT NOT NULL,
    inserted_count BIGINT NOT NULL, updated_count BIGINT NOT NULL, deleted_count BIGINT NOT NULL,
    loaded_at {instant} NOT NULL DEFAULT CURRENT_TIMESTAMP
"""
RECORDED = f"""
    SELECT destination, mode, inserted_count, updated_count, deleted_count FROM {LEDGER} WHERE load_id = ?
"""  # noqa: S608 - a constant of ours
RECORD = f"""
    INSERT INTO {LEDGER} (load_id, destination, mode, inserted_count, updated_count, deleted_count)
    VALUES (?, ?, ?, ?, ?, ?)
"""  # noqa: S608 - a constant of ours


def select(dialect: Dialect, table: str, condition: str = "", columns: Collection[str] = ()) -> str:
    """Return the query for the rows of a table: all, or those that meet a condition, which is SQL of this worker.

    `columns` are the only ones that are read. Names are qualified, for SQLite takes one that no column has for a text.
    """
    return _select(dialect, dialect.target(table), condition, columns)


def select_from(dialect: Dialect, query: str, condition: str = "", columns: Collection[str] = ()) -> str:
    """Return the query for rows of another one, as `select` does for those of a table."""
    return _select(dialect, f"({query}\n)", condition, columns) if condition or columns else query


def _select(dialect: Dialect, what: str, condition: str, columns: Collection[str]) -> str:
    names = ", ".join(f"s.{dialect.quoted(name)}" for name in columns) or "*"
    return f"SELECT {names} FROM {what} AS s{f' WHERE {condition}' if condition else ''}"  # noqa: S608 - quoted names


def create_table(plan: TablePlan) -> str:
    """Return the DDL of a target with the dataset's columns; all but the key of an upsert are nullable."""
    parts = _declared(plan)
    if plan.dialect.primary_keys and plan.key:
        parts.append(f"PRIMARY KEY ({names_in(plan, plan.key)})")
    return f"CREATE TABLE {plan.target} ({', '.join(parts)})"


def add_columns(plan: TablePlan, names: Iterable[str]) -> list[str]:
    """Return the DDL that adds columns of the dataset to the target, one statement each."""
    dialect = plan.dialect
    return [
        f"ALTER TABLE {plan.target} ADD COLUMN {dialect.quoted(name)} {dialect.declare(plan.columns[name])}"
        for name in names
    ]


def create_stage(plan: TablePlan) -> str:
    """Return the DDL of the temporary table into which a dataset is staged."""
    return f"CREATE TEMPORARY TABLE {STAGE} ({', '.join(_declared(plan))})"


def insert_staged(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the statement that appends the staged rows; `value` gives the expression for a column."""
    names = list(plan.columns)
    return (
        f"INSERT INTO {plan.target} ({names_in(plan, names)}) {plan.dialect.overriding}"  # noqa: S608 - quoted names
        f"SELECT {', '.join(map(value, names))} FROM {STAGE} AS s"
    )


def update_matching(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the statement that updates the rows whose key is staged."""
    changed = (name for name in plan.columns if name not in plan.key)
    assignments = ", ".join(f"{plan.dialect.quoted(name)} = {value(name)}" for name in changed)
    return f"UPDATE {plan.target} AS t SET {assignments} FROM {STAGE} AS s WHERE {matches(plan, value)}"  # noqa: S608 - quoted names


def insert_missing(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the statement that inserts the staged rows whose key is not in the table.

    It is an outer join instead of NOT EXISTS, because SQLite builds an index for a join if the table has none.
    """
    names = list(plan.columns)
    return (
        f"INSERT INTO {plan.target} ({names_in(plan, names)}) {plan.dialect.overriding}"  # noqa: S608 - quoted names
        f"SELECT {', '.join(map(value, names))} FROM {STAGE} AS s "
        f"LEFT JOIN {plan.target} AS t ON {matches(plan, value)} WHERE t.{plan.dialect.quoted(plan.key[0])} IS NULL"
    )


def find_missing_keys(plan: TablePlan) -> str:
    """Return the query that counts staged rows without a complete key."""
    return f"SELECT count(*) FROM {STAGE} WHERE {' OR '.join(f'{plan.dialect.quoted(k)} IS NULL' for k in plan.key)}"  # noqa: S608 - quoted names


def find_duplicate_key(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the query for one key that is staged more than once: its values as texts, and the number of rows."""
    keys = [value(name) for name in plan.key]
    texts = ", ".join(plan.dialect.as_text(key) for key in keys)
    grouped = ", ".join(keys)
    return f"SELECT {texts}, count(*) FROM {STAGE} AS s GROUP BY {grouped} HAVING count(*) > 1 LIMIT 1"  # noqa: S608 - quoted names


def matches(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the condition that a row `t` of the target has the key of a staged row `s`."""
    return " AND ".join(f"t.{plan.dialect.quoted(name)} = {value(name)}" for name in plan.key)


def is_unchanged(plan: TablePlan, equal: Callable[[str], str]) -> str:
    """Return the condition that a row `t` of the target equals the staged row with the same key.

    `equal` gives the condition for one column; two missing values are equal.
    """
    return " AND ".join(equal(name) for name in plan.columns if name not in plan.key) or "true"


def delete_staged(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the statement that deletes the target's rows whose key is staged."""
    return f"DELETE FROM {plan.target} AS t WHERE {_is_staged(plan, value)}"  # noqa: S608 - quoted names


def delete_missing(plan: TablePlan, value: Callable[[str], str]) -> str:
    """Return the statement that deletes the target's rows whose key is not staged."""
    return f"DELETE FROM {plan.target} AS t WHERE NOT {_is_staged(plan, value)}"  # noqa: S608 - quoted names


def mark_missing(plan: TablePlan, value: Callable[[str], str], column: str) -> str:
    """Return the statement that writes the time into `column` of the rows whose key is not staged, once."""
    mark = plan.dialect.quoted(column)
    return (
        f"UPDATE {plan.target} AS t SET {mark} = CURRENT_TIMESTAMP "  # noqa: S608 - quoted names
        f"WHERE t.{mark} IS NULL AND NOT {_is_staged(plan, value)}"
    )


def unmark_staged(plan: TablePlan, value: Callable[[str], str], column: str) -> str:
    """Return the statement that empties `column` of the rows whose key is staged."""
    mark = plan.dialect.quoted(column)
    return f"UPDATE {plan.target} AS t SET {mark} = NULL WHERE t.{mark} IS NOT NULL AND {_is_staged(plan, value)}"  # noqa: S608 - quoted names


def _is_staged(plan: TablePlan, value: Callable[[str], str]) -> str:
    return f"EXISTS (SELECT 1 FROM {STAGE} AS s WHERE {matches(plan, value)})"  # noqa: S608 - quoted names


def names_in(plan: TablePlan, names: Iterable[str]) -> str:
    """Return quoted names, separated by commas."""
    return ", ".join(map(plan.dialect.quoted, names))


def _declared(plan: TablePlan) -> list[str]:
    dialect = plan.dialect
    return [f"{dialect.quoted(name)} {dialect.declare(kind)}" for name, kind in plan.columns.items()]
