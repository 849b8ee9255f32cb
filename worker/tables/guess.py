"""Give columns of text their types while they are written, by a guess from the first rows.

The guess is the first type that the first rows do not rule out. If all rows have it, it is the type that
`worker.tables.inference` finds with the whole file at hand; where one has not, that column is written as text in
another pass, and settled afterwards. So the outcome is the same, and most files are written once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from worker.tables.checks import PLAIN, Check, Decimal, Missing, Spelling, Text
from worker.tables.inference import kinds_of, possible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.jobs.data.places import ColumnType
    from worker.tables.inference import Candidate


class Guess:
    """The types of the columns of one file. `typed` may be called by several threads."""

    def __init__(
        self, told: Mapping[str, ColumnType] | None = None, *, infers: bool = True, spelling: Spelling = PLAIN
    ) -> None:
        """Take the types that the job names; the others are inferred, or text."""
        self._told = told or {}
        self._candidate: Candidate = "any" if infers else "text"
        self._spelling = spelling
        self._checks: dict[str, Check] = {}
        self._schema = pa.schema([])
        #: The columns that remain text until they are settled.
        self.left: set[str] = set()
        self._refuted: set[str] = set()

    def begin(self, first: pa.RecordBatch) -> pa.Schema:
        """Return the types that the first rows of a pass do not rule out."""
        self._refuted = set()
        names = first.schema.names
        told = {name: kind for name, kind in self._told.items() if name in names}
        kinds = kinds_of(dict.fromkeys(names, self._candidate), told)
        found = {name: self._first(first.column(name), kinds[name], is_told=name in told) for name in names}
        self.left |= {name for name, check in found.items() if check is None}
        self._checks = {name: Text() if check is None or name in self.left else check for name, check in found.items()}
        self._schema = pa.schema([(name, check.type) for name, check in self._checks.items()])
        return self._schema

    def _first(self, column: pa.Array, kinds: tuple[type[Check], ...], *, is_told: bool) -> Check | None:
        """Return the check of the first possible type; None if only the whole file can tell."""
        if not is_told and column.null_count == len(column):
            return Missing() if kinds else Text()
        fitting = possible(column, kinds, self._spelling)
        if not fitting:
            return None if is_told else Text()
        return None if issubclass(fitting[0], Decimal) else fitting[0](self._spelling)

    def typed(self, batch: pa.RecordBatch) -> pa.RecordBatch | None:
        """Return the rows with types; None if a value of these or of earlier rows speaks against one."""
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name in self._refuted:
                continue
            converted = self._checks[name].converted(column)
            if converted is None:
                self._refuted.add(name)
            else:
                columns.append(converted)
        return None if self._refuted else pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def ends(self) -> bool:
        """Return whether all rows have had the types; if not, another pass has to leave some columns as text."""
        self._refuted |= {name for name, check in self._checks.items() if check.seen and not check.holds()}
        self.left |= self._refuted
        return not self._refuted

    def rest(self, names: list[str]) -> tuple[dict[str, Candidate], dict[str, ColumnType]]:
        """Return what is to be settled: the columns that are still text, and the types that the job names for them."""
        told = {name: kind for name, kind in self._told.items() if name in self.left or name not in names}
        return dict.fromkeys((name for name in names if name in self.left), self._candidate), told
