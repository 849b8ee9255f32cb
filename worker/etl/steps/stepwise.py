# ruff: noqa: S608 - SQL is made here; every name is quoted and every value bound
"""Apply declarative steps one after another, as one query where that is possible.

The rows before a cast are read more than once: to count what it cannot convert, to write what it rejects, and to go on.
So what came before is first written to a file of its own, unless it is row-wise: then reading again is cheaper.
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
    """Rows refused, values nulled, and both by reason."""

    rejected: int = 0
    nulled: int = 0
    by_reason: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int) -> None:
        """Count a reason."""
        if count:
            self.by_reason[reason] = self.by_reason.get(reason, 0) + count


class Stepwise:
    """The steps of one transformation, what its casts refused or nulled, and the files needed on the way."""

    def __init__(self, steps: Sequence[Step], bad_rows: BadRows, scratch: Path) -> None:
        """Plan the steps; nothing runs yet."""
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
        """The files that may be written on the way."""
        return [*self._stages.values(), *self._refused.values(), self._gathered]

    @property
    def passes(self) -> int:
        """How often rows are read, about."""
        return 1 + len(self._stages)

    def compile(
        self, columns: Columns, inputs: Mapping[str, Columns], engine: Engine, next_pass: Callable[[], None]
    ) -> str:
        """Return a query for the rows after all steps; run only what the casts need to know before.

        `next_pass` is called after each reading of rows on the way.
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
        """Write the refused rows of all casts into one file and return it. A column of two types becomes text."""
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
        """Write the rows so far to a file and go on from there."""
        engine.write(source.sql, self.bindings.used_in(source.sql), self._stages[index])
        for earlier in (path for place, path in self._stages.items() if place < index):
            earlier.unlink(missing_ok=True)  # nothing reads it any more, and the disk is shared
        sql = parquet([self._stages[index]])
        return replace(source, sql=sql, columns=engine.columns(sql))

    def _checked(self, bad: Sequence[casts.Conversion], source: Source, index: int, engine: Engine) -> Source:
        """Apply the policy for bad rows and return the rows that go on, not yet converted."""
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
