"""Give columns of text the types that all of their values have.

Files without types are staged as text first. A column then becomes a number, a date or a boolean only if every
one of its values in the whole file is one *and nothing is lost*: ``007`` stays text because 7 is not the same, and
a column with one ``abc`` stays text as a whole, so that the value survives to a transformation, whose `cast`
decides by its `bad_rows` what becomes of it. A sample of rows only rules candidates out; it never settles a type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from worker.etl.columns import quoted, text
from worker.etl.engine import parquet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from worker.etl.engine import Engine

#: What a column of text may become: anything, a number (exact for `decimal`), a boolean, or only text.
Candidate = Literal["any", "number", "decimal", "boolean", "text"]

_SAMPLE_ROWS = 10_000
_TYPES: Mapping[Candidate, tuple[str, ...]] = {
    "any": ("BOOLEAN", "BIGINT", "DOUBLE", "DATE", "TIMESTAMP"),
    "number": ("BIGINT", "DOUBLE"),
    "decimal": ("DECIMAL", "DOUBLE"),
    "boolean": ("BOOLEAN",),
    "text": (),
}
_PLAIN_DECIMAL = r"-?[0-9]+(\.[0-9]+)?"
_NUMBER = r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_MOMENT = rf"{_DAY}([ T][0-9]{{2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{1,6}})?)?)?"
_EXACT_DIGITS = 15  # any decimal of so many digits survives a float64 and back
_WIDEST_DECIMAL = 38


def settle(engine: Engine, staged: Path, output: Path, candidates: Mapping[str, Candidate]) -> int:
    """Write the Parquet file of text columns `staged` to `output` with settled types; return its row count.

    Columns of `staged` that `candidates` does not name stay as they are.
    """
    rows = parquet([staged])
    wanted = {name: _TYPES[candidate] for name, candidate in candidates.items()}
    types = _settled(engine, rows, _fitting(engine, f"{rows} LIMIT {_SAMPLE_ROWS}", wanted))
    exact = _decimal_types(engine, rows, [name for name, kind in types.items() if kind == "DECIMAL"])
    columns = engine.columns(rows)
    casts = ", ".join(_cast(name, exact.get(name) or types.get(name)) for name in columns)
    return engine.write(f"SELECT {casts} FROM ({rows})", {}, output)  # noqa: S608 - quoted names


def _settled(engine: Engine, rows: str, open_types: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the first type of each column that fits all rows; a scan checks one type a column, the next if need be."""
    settled: dict[str, str] = {}
    while open_types := {name: kinds for name, kinds in open_types.items() if kinds}:
        tried = _fitting(engine, rows, {name: kinds[:1] for name, kinds in open_types.items()}, least_values=1)
        settled |= {name: kinds[0] for name, kinds in tried.items() if kinds}
        open_types = {name: kinds[1:] for name, kinds in open_types.items() if name not in settled}
    return settled


def _fitting(
    engine: Engine, rows: str, types: Mapping[str, tuple[str, ...]], *, least_values: int = 0
) -> dict[str, tuple[str, ...]]:
    """Return the types that no value speaks against, of columns with so many values at least."""
    pairs = [(name, kind) for name, kinds in types.items() for kind in kinds]
    if not pairs:
        return dict(types)
    checks = ", ".join(_check(quoted(name), kind, least_values) for name, kind in pairs)
    (outcome,) = engine.rows(f"SELECT {checks} FROM ({rows})")  # noqa: S608 - quoted names
    fitting = {pair for pair, fits in zip(pairs, outcome, strict=True) if fits}
    return {name: tuple(kind for kind in kinds if (name, kind) in fitting) for name, kinds in types.items()}


def _check(column: str, kind: str, least_values: int) -> str:
    """Return a SQL aggregate that is true if no value of `column` speaks against `kind`."""
    template = f"count({{c}}) >= {least_values} AND count({{c}}) = count(*) FILTER ({_VALUE_CHECKS[kind]})"
    if kind == "DOUBLE":
        template = f"{template} AND {_SAME_SCALE}"
    return f"({template.replace('{c}', column)})"


_VALUE_CHECKS: Mapping[str, str] = {
    "BOOLEAN": "lower({c}) IN ('true', 'false')",
    "BIGINT": "CAST(TRY_CAST({c} AS BIGINT) AS VARCHAR) = {c}",
    "DOUBLE": "regexp_full_match({c}, " + text(_NUMBER) + ") AND isfinite(TRY_CAST({c} AS DOUBLE)) "
    f"AND (length({{c}}) <= {_EXACT_DIGITS} OR length(regexp_replace({{c}}, '[^0-9]', '', 'g')) <= {_EXACT_DIGITS} "
    "OR replace(CAST(TRY_CAST({c} AS DOUBLE) AS VARCHAR), 'e+', 'e') = replace({c}, 'e+', 'e'))",
    "DECIMAL": "regexp_full_match({c}, " + text(_PLAIN_DECIMAL) + ")",
    "DATE": "regexp_full_match({c}, " + text(_DAY) + ") AND TRY_CAST({c} AS DATE) IS NOT NULL",
    "TIMESTAMP": "regexp_full_match({c}, " + text(_MOMENT) + ") AND TRY_CAST({c} AS TIMESTAMP) IS NOT NULL",
}
# 1.1 beside 1.10 is a version or a label; 1.10 beside 2.50 is an amount
_SAME_SCALE = (
    "(count(*) FILTER (regexp_matches({c}, '[.][0-9]+0$')) = 0 OR "
    "min(length(split_part({c}, '.', 2))) FILTER (contains({c}, '.')) = "
    "max(length(split_part({c}, '.', 2))) FILTER (contains({c}, '.')))"
)


def _decimal_types(engine: Engine, rows: str, names: list[str]) -> dict[str, str]:
    """Return the narrowest type for columns of plain decimals: exact where it can be."""
    if not names:
        return {}
    sizes = ", ".join(
        f"max(length(ltrim(split_part({c}, '.', 1), '-'))), max(length(split_part({c}, '.', 2)))"
        for c in map(quoted, names)
    )
    (outcome,) = engine.rows(f"SELECT {sizes} FROM ({rows})")  # noqa: S608 - quoted names
    types = {}
    for name, whole, scale in zip(names, outcome[::2], outcome[1::2], strict=True):
        width = (whole or 1) + (scale or 0)
        roomy = 18 if width <= 18 else _WIDEST_DECIMAL  # noqa: PLR2004 - DuckDB's 64 and 128 bit decimals
        types[name] = f"DECIMAL({roomy}, {scale or 0})" if width <= _WIDEST_DECIMAL else "DOUBLE"
    return types


def _cast(name: str, kind: str | None) -> str:
    return f"CAST({quoted(name)} AS {kind}) AS {quoted(name)}" if kind else quoted(name)
