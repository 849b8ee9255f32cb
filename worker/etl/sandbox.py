"""Check a client's SQL before it runs: one SELECT over permitted views, with functions that only compute.

This is the first of two defences. It reads DuckDB's own syntax tree and allows only the kinds of nodes that it
knows; the second is the locked engine, which has access only to the job's files.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import duckdb

from shared.errors import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.tables.duck.engine import Engine

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_FROM = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "PIVOT", "EMPTY"})
_TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree"})
#: Functions that reveal the engine's state, wait, log, or run text as SQL. All others only compute from arguments.
_FORBIDDEN = re.compile(
    r"pg_\w*|inet_\w*|obj_description|shobj_description|col_description|has_\w+_privilege|__\w*"
    r"|current_(setting|query|query_id|database|catalog|schema|schemas|user|role|connection_id|transaction_id)"
    r"|session_user|user|in_search_path|getenv|getvariable|variable|version|get_block_size|txid_current"
    r"|nextval|currval|setval|setseed|sleep_ms|write_log|parse_duckdb_log_message|stats|vector_type"
    r"|query|query_table|json_(de)?serialize_\w+|json_execute_\w+|which_secret"
    r"|read_\w+|parquet_\w+|duckdb_\w+|glob|sniff_csv"
)
_ADVICE = "Write one SELECT over 'input' and the views named in 'inputs'."


def checked(sql: str, views: Iterable[str], engine: Engine) -> str:
    """Return the single statement in `sql`, without a trailing separator or comment.

    Raises `TaskFailure` (``invalid_sql``) unless it is a single SELECT that names nothing but `views` and its own
    common table expressions, without functions that reach beyond their arguments.
    """
    try:
        statements = engine.statements(sql)
    except TaskFailure as failure:
        raise _refused(failure.message) from None
    if len(statements) != 1:
        raise _refused(f"there are {len(statements)} statements instead of one")
    if statements[0].type != duckdb.StatementType.SELECT:  # a PIVOT that has to look for its columns is several
        raise _refused(f"it is {statements[0].type.name}, not one SELECT (a PIVOT must list its columns)")
    ((serialised,),) = engine.rows("SELECT json_serialize_sql($sql)", {"sql": sql})
    try:
        tree = json.loads(serialised)
        if tree["error"]:
            raise _refused(tree["error_message"])
        _check(tree["statements"], frozenset(view.casefold() for view in views))
    except RecursionError:
        raise _refused("it is nested too deeply") from None
    return str(statements[0].query).rstrip().rstrip(";")


def _check(node: Any, visible: frozenset[str]) -> None:
    if isinstance(node, list):
        for item in node:
            _check(item, visible)
        return
    if not isinstance(node, dict):
        return
    if "cte_map" in node:
        visible = _check_query(node, visible)
    elif "class" in node:
        _check_expression(node)
    elif "alias" in node and "type" in node:
        _check_from(node, visible)
    for name, value in node.items():
        if name not in {"cte_map", "function"}:
            _check(value, visible)
        elif name == "function":  # of a table function; _check_from has checked its name
            _check(value["arguments"], visible)


def _check_query(node: dict[str, Any], visible: frozenset[str]) -> frozenset[str]:
    """Check a query's common table expressions in order and return the names that its body sees."""
    if node["type"] not in _QUERIES:
        raise _refused(f"{_spoken(node['type'])} is not allowed")
    if node["type"] == "RECURSIVE_CTE_NODE":
        visible |= {node["cte_name"].casefold()}
    for entry in node["cte_map"].get("map", []):
        _check(entry["value"], visible)
        visible |= {entry["key"].casefold()}
    return visible


def _check_from(node: dict[str, Any], visible: frozenset[str]) -> None:
    kind = node["type"]
    if kind not in _FROM:
        raise _refused(f"{_spoken(kind)} is not allowed in FROM")
    if kind == "BASE_TABLE":
        name = ".".join(node["qualified_name"]["path"])
        if name.casefold() not in visible or len(node["qualified_name"]["path"]) != 1:
            known = ", ".join(repr(view) for view in sorted(visible))
            raise _refused(f"there is no view {name!r}; the views are {known}")
    if kind == "TABLE_FUNCTION" and node["function"]["function_name"].casefold() not in _TABLE_FUNCTIONS:
        raise _refused(f"the table function {node['function']['function_name']!r} is not allowed")


def _check_expression(node: dict[str, Any]) -> None:
    if node["class"] == "PARAMETER":
        raise _refused("it has a parameter (? or $name); write the value in its place")
    names = [str(node.get("function_name", ""))]
    if node["class"] == "COLUMN_REF" and len(node["column_names"]) == 1 and "current_" in node["column_names"][0]:
        names = node["column_names"]  # current_query and similar functions are called without parentheses
    for name in names:
        if _FORBIDDEN.fullmatch(name.casefold()):
            raise _refused(f"the function {name!r} is not allowed")


def _spoken(kind: str) -> str:
    return kind.removesuffix("_NODE").removesuffix("_REF").removesuffix("_QUERY").replace("_", " ")


def _refused(why: str) -> TaskFailure:
    return TaskFailure("invalid_sql", f"sql: {why}.", remedy=_ADVICE)
