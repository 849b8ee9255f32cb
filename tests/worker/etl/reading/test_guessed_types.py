"""Types guessed from the first rows, by several threads: the outcome is that of reading all rows as text first."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import TaskFailure
from shared.jobs.data.places import FileLayout
from worker.etl.reading import delimited, readers
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file
from worker.tables import checks
from worker.tables.checks import PLAIN, Spelling
from worker.tables.inference import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.jobs.data.places import ColumnType
    from worker.tables.inference import Candidate

LIMITS = ReadLimits(memory_limit_bytes=128 * 1024**2, plain_max_bytes=256 * 1024**2, threads=2)
BLOCKS_BYTES = (128, 4_096)
TEXTS = [
    "0", "1", "-7", "-0", "00", "007", "+1", "1.5", "-0.25", "0.5", ".5", "-.5", "1.", ".", "-", "--1", "1-2", "1/2",
    "1e5", "1e999", "nan", "inf", "0x10", " 1", "9223372036854775807", "9223372036854775808", "0.30000000000000004",
    "12345678901234567890.5", "1.000,5", "1.000", "1,5", "true", "False", "2024-01-02", "0999-01-02", "2024-02-30",
    "20240102  ", "2024-01-02T10:00", "2024-01-02 10:00:00Z", "", '""', "x", '"a,\nb"', "é",
]  # fmt: skip


def _outcome(run: Callable[[Path], pa.Table]) -> object:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return run(Path(folder))
        except TaskFailure as failed:
            return failed.code, failed.message


def _as_text_first(body: bytes, layout: FileLayout, folder: Path) -> tuple[object, ...]:
    source, staged, output = folder / "source.csv", folder / "staged", folder / "output"
    source.write_bytes(body)
    found = delimited.stage_delimited(source, layout, staged, delimiter=None, on_bytes=lambda _: None)
    told: dict[str, ColumnType] = {}
    if not layout.infer_types:
        told = dict.fromkeys(found.names, "string")
    spelling = Spelling(layout.decimal, layout.thousands)
    candidates: dict[str, Candidate] = dict.fromkeys(found.names, "any")
    settle(staged, output, candidates, lambda _: None, told=told | layout.types, spelling=spelling)
    return repr(pq.read_table(output).to_pydict()), pq.read_schema(output), found.bad_rows


def _at_once(body: bytes, layout: FileLayout, folder: Path) -> tuple[object, ...]:
    source, output = folder / "source.csv", folder / "output"
    source.write_bytes(body)
    table = read_file(
        SourceFile(source, "source.csv"),
        layout,
        output=output,
        scratch=folder,
        limits=LIMITS,
        on_progress=lambda *_: None,
    )
    found = pq.read_table(output)
    assert found.num_rows == table.row_count
    return repr(found.to_pydict()), pq.read_schema(output), table.bad_rows


def _column() -> st.SearchStrategy[list[str]]:
    few = st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)
    return st.tuples(few, few, st.integers(0, 60)).map(lambda made: (made[0] * 60)[: made[2]] + (made[1] * 60))


@settings(max_examples=40, deadline=None)
@given(
    columns=st.lists(_column(), min_size=1, max_size=4),
    count=st.integers(0, 60),
    sign=st.sampled_from([",", ";"]),
    broken=st.sampled_from(["", "", "", '"open', "a,b;c,d;e", '"x"y']),
    layout=st.fixed_dictionaries(
        {},
        optional={
            "types": st.dictionaries(
                st.sampled_from(["c0", "c1", "none"]),
                st.sampled_from(["integer", "float", "decimal", "string", "date"]),
            ),
            "infer_types": st.booleans(),
            "on_bad_rows": st.sampled_from(["fail", "skip", "reject"]),
            "null_values": st.just(["x", "0"]),
            "quoted_nulls": st.booleans(),
            "decimal": st.just(","),
            "has_header": st.booleans(),
        },
    ),
)
def test_the_outcome_is_that_of_reading_text_first(
    columns: list[list[str]], count: int, sign: str, broken: str, layout: dict[str, object]
) -> None:
    """Tables, types, rejected rows and failures, to the last letter; types change late, and across blocks."""
    rows = [sign.join(column[at] for column in columns) for at in range(count)] + [broken]
    body = "\n".join([sign.join(f"c{at}" for at in range(len(columns))), *rows, ""]).encode()
    chosen = FileLayout.model_validate({"delimiter": sign, **layout})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delimited, "_BLOCKS_BYTES", BLOCKS_BYTES)
        first = _outcome(lambda folder: _as_text_first(body, chosen, folder))
        assert _outcome(lambda folder: _at_once(body, chosen, folder)) == first


def test_a_late_value_makes_only_its_column_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written in the first pass is written again, and the other columns are not settled again."""
    settled: list[set[str]] = []

    def noting(staged: Path, output: Path, candidates: dict[str, object], *more: object, **options: object) -> int:
        settled.append(set(candidates))
        return settle(staged, output, candidates, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(readers, "settle", noting)
    body = "id,code,price,gone\n" + "".join(f"{at},{at},{at},\n" for at in range(90_000)) + "90000,A1,1.5,\n"
    layout = FileLayout()
    (tmp_path / "one").mkdir()
    kinds = _at_once(body.encode(), layout, tmp_path / "one")[1]
    assert [str(kind) for kind in kinds.types] == ["int64", "string", "double", "null"]  # type: ignore[attr-defined]
    assert settled == [{"code", "price"}]


NUMERAL = st.text(alphabet="0019.-/+e,xn ", max_size=6)
DATE = st.from_regex(r"\A[0-2][0-9]{3}[-/0][01][0-9][-/0][0-3][0-9]\Z") | st.text(
    alphabet="0129-", min_size=9, max_size=11
)


@settings(max_examples=400, deadline=None)
@given(kind=st.sampled_from([checks.Integer, checks.Float, checks.ANY_INTEGER, checks.ANY_FLOAT]), text=NUMERAL)
def test_a_number_is_one_with_and_without_a_look_at_each_sign(kind: type[checks.Check], text: str) -> None:
    """What is taken at once has the form that the pattern tells."""
    _agree(kind, text)


@settings(max_examples=200, deadline=None)
@given(text=DATE)
def test_a_day_is_one_with_and_without_a_look_at_each_sign(text: str) -> None:
    """The same for dates."""
    _agree(checks.Day, text)


def _agree(kind: type[checks.Check], text: str) -> None:
    check = kind(PLAIN)
    plain = check.plain(pa.array([text, None]))
    by_pattern = bool(pc.all(pc.match_substring_regex(plain, check.pattern)).as_py()) and check.exact(plain) is not None
    assert check.accepts(pa.array([text, None])) == by_pattern
