# ruff: noqa: S608 - this module builds SQL; every name is quoted and every value is bound
"""Apply declarative steps in order, as one query where possible.

The rows before a cast are read more than once: to count the values that cannot be converted, to write the rejected
rows, and to continue. So those rows are first written to a file, unless the steps before are row-wise: then
computing them again is cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shared.errors import TaskFailure
from shared.jobs.data.steps import CastStep
from worker.etl.steps import casts
from worker.etl.steps.compile_expressions import Bindings
from worker.etl.steps.compile_steps import ROW_WISE, Source, compile_step, replacing
from worker.tables.duck.engine import parquet
from worker.tables.parquet.columns import Columns, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from shared.jobs.data.steps import BadRows, Step
    from worker.tables.duck.engine import Engine


@dataclass
class Counts:
    """Rejected rows, nulled values, and both by reason."""

    rejected: int = 0
    nulled: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        if count:
            self.by_reason[reason] = self.by_reason.get(reason, 0) + count


class Stepwise:
    """The steps of one transformation, what its casts rejected or nulled, and its temporary files."""

    def __init__(self, steps: Sequence[Step], bad_rows: BadRows, scratch: Path) -> None:
        self.counts = Counts()
        self.bindings = Bindings()
        self._steps = steps
        self._bad_rows = bad_rows
        casting = [index for index, step in enumerate(steps) if isinstance(step, CastStep)]
        self._stages = {index: scratch / f"stage-{index}.parquet" for index in casting}
        self._refused = {index: scratch / f"refused-{index}.parquet" for index in casting}
        self._gathered = scratch / "refused.parquet"

    @property
    def files(self) -> list[Path]:
        """The temporary files that may be written."""
        return [*self._stages.values(), *self._refused.values(), self._gathered]

    @property
    def passes(self) -> int:
        """About how many times the rows are read."""
        return 1 + len(self._stages)

    def compile(
        self, columns: Columns, inputs: Mapping[str, Columns], engine: Engine, next_pass: Callable[[], None]
    ) -> str:
        """Return a query for the rows after all steps; run only the queries that the casts depend on.

        `next_pass` is called after each of these queries.
        """
        source = Source("SELECT * FROM input", columns, inputs, self.bindings, "")
        row_wise = True
        for index, step in enumerate(self._steps):
            source = replace(source, where=f"steps[{index}] {step.op}")
            if isinstance(step, CastStep):
                converted = casts.conversions(step, source)
                if any(one.fallible for one in converted):
                    source = source if row_wise else self._staged(source, index, engine)
                    source = self._checked([one for one in converted if one.fallible], source, index, engine)
                    row_wise = True
                    next_pass()
                sql = replacing({one.column: one.sql for one in converted}, source)
            else:
                sql = compile_step(step, source)
            row_wise = row_wise and isinstance(step, ROW_WISE)
            source = replace(source, sql=sql, columns=self._columns(sql, source.where, engine))
        return source.sql

    def gather_rejects(self, engine: Engine) -> Path:
        """Write the rejected rows of all casts into one file and return it. A column of two types becomes text."""
        parts = [path for path in self._refused.values() if path.exists()]
        columns = [engine.columns(parquet([path])) for path in parts]
        types: dict[str, set[str]] = {}
        for part in columns:
            for name, kind in part.items():
                types.setdefault(name, set()).add(kind)
        selects = [
            "SELECT {} FROM ({})".format(", ".join(_in_common(name, types[name]) for name in part), parquet([path]))
            for part, path in zip(columns, parts, strict=True)
        ]
        engine.write(" UNION ALL BY NAME ".join(selects), {}, self._gathered)
        return self._gathered

    def _columns(self, sql: str, where: str, engine: Engine) -> Columns:
        try:
            return engine.columns(sql, self.bindings.used_in(sql))
        except TaskFailure as failure:
            raise TaskFailure(
                failure.code, f"{where}: {failure.message}", remedy=failure.remedy, **failure.details
            ) from None

    def _staged(self, source: Source, index: int, engine: Engine) -> Source:
        """Write the rows so far to a file and continue from it."""
        engine.write(source.sql, self.bindings.used_in(source.sql), self._stages[index])
        for earlier in (path for place, path in self._stages.items() if place < index):
            earlier.unlink(missing_ok=True)  # it is no longer read, and the disk is shared
        sql = parquet([self._stages[index]])
        return replace(source, sql=sql, columns=engine.columns(sql))

    def _checked(self, bad: Sequence[casts.Conversion], source: Source, index: int, engine: Engine) -> Source:
        """Apply the policy for bad rows and return the remaining rows, not yet converted."""
        if self._bad_rows == "null":
            sql = casts.count_nulled(bad, source)
            (counts,) = engine.rows(sql, self.bindings.used_in(sql))
            for one, count in zip(bad, counts, strict=True):
                self.counts.nulled += count
                self.counts.add(one.reason, count)
            return source
        sql = casts.count_refused(bad, source)
        found = engine.rows(sql, self.bindings.used_in(sql))
        if not found:
            return source
        if self._bad_rows == "fail":
            which, _, example = found[0]
            raise casts.bad_row(bad[which], sum(count for _, count, _ in found), example, source, index)
        for which, count, _ in found:
            self.counts.rejected += count
            self.counts.add(bad[which].reason, count)
        sql = casts.refused(bad, source)
        engine.write(sql, self.bindings.used_in(sql), self._refused[index])
        return replace(source, sql=casts.passed(bad, source))


def _in_common(name: str, types: set[str]) -> str:
    return quoted(name) if len(types) == 1 else f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}"
