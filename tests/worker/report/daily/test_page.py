"""The page about a day says what was counted."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.worker.report.daily.test_day import day_of, job, ms
from worker.pages.content.document import Document, Tiles
from worker.pages.content.shapes import Bars, Lines
from worker.pages.forms.page import write_page
from worker.report.daily.day import FEW, Day, tallied
from worker.report.daily.page import bounds, described
from worker.report.forms.workbook import write_workbook

BERLIN = ZoneInfo("Europe/Berlin")
MADE = datetime(2026, 11, 22, 9, tzinfo=UTC)
START = ms("2026-11-21T10:00:00+01:00")


def empty(day: date) -> Day:
    return tallied(*bounds(day, BERLIN), [])


def tiles(document: Document) -> dict[str, str]:
    (found,) = [part for section in document.sections for part in section.parts if isinstance(part, Tiles)]
    return {tile.label: tile.value.replace("\N{NARROW NO-BREAK SPACE}", " ") for tile in found.tiles}


@pytest.fixture(scope="module")
def document() -> Document:
    """Return the report about thirty jobs, ten of them failed, beside a day with twenty."""
    error = json.dumps({"code": "refused", "message": "<script>no</script>"})
    times = {"queued_at": START, "started_at": START + 2_000, "finished_at": START + 5_000}
    three = (job(**times), job(**times, state="failed", error=error, kind="=cmd()"), job(state="queued", queue="ml"))
    return described(day_of(*three * 10), day_of(*[job(**times)] * 20), made_at=MADE)


def test_figures_of_the_day(document: Document) -> None:
    """Tiles and tables show the counts, the failure rate among the jobs tried, the times, and the change."""
    assert tiles(document) == {
        "Jobs submitted": "30",
        "Failure rate": "50.0 %",
        "Wait, 95th percentile": "2 s".replace(" ", "\N{NO-BREAK SPACE}"),
        "Run time, 95th percentile": "3 s".replace(" ", "\N{NO-BREAK SPACE}"),
        "Retries": "0",
        "Not finished": "10",
    }
    tables = {table.title: list(table.rows(100)) for table in document.tables}
    assert tables["Kinds"] == [("etl.load_data", 20, 10, 0, 0, 10, 0.0), ("=cmd()", 10, 0, 10, 0, 0, 1.0)]
    assert tables["Queues"] == [("etl", 20, 2.0, 2.0, 2.0, 2.0), ("ml", 10, None, None, None, None)]
    assert tables["Most frequent errors"] == [("refused", 10, 1.0, "=cmd()", "<script>no</script> (job j)")]
    assert ("Jobs submitted", "30", "20", "+50\N{NARROW NO-BREAK SPACE}%") in tables["Compared with the day before"]
    by_hour = next(figure.shape for figure in document.figures if figure.title.startswith("Jobs by hour"))
    assert isinstance(by_hour, Bars)
    assert [sum(series.numbers[10] or 0 for series in by_hour.series), len(by_hour.categories)] == [30, 24]


def test_the_day_can_be_rendered(document: Document, tmp_path: Path) -> None:
    """Page and workbook are made; what clients put into kinds and errors is text."""
    write_page(document, tmp_path / "day.html", for_paper=True)
    page = (tmp_path / "day.html").read_text("utf-8")
    assert '<h1 dir="auto">Jobs on Saturday, 21 November 2026</h1>' in page
    assert "&lt;script&gt;no" in page
    assert "<script" not in page
    write_workbook(document, tmp_path / "day.xlsx", tmp_path)
    assert (tmp_path / "day.xlsx").stat().st_size > 5_000


def test_a_day_without_jobs(tmp_path: Path) -> None:
    """It says so, with the figures that there are."""
    document = described(empty(date(2026, 11, 21)), empty(date(2026, 11, 20)), made_at=MADE)
    write_page(document, tmp_path / "day.html")
    assert "No job was submitted on this day." in (tmp_path / "day.html").read_text("utf-8")
    assert tiles(document)["Failure rate"] == "–"  # noqa: RUF001 - nothing to say
    assert document.figures == []


def test_a_few_jobs_are_told_one_by_one(tmp_path: Path) -> None:
    """Percentiles of three jobs say less than the jobs; each is a row, and the tiles show the longest times."""
    times = {"queued_at": START, "started_at": START + 2_000, "finished_at": START + 5_000}
    few = day_of(job(**times), job(**times, id="k"), job(state="queued"))
    document = described(few, empty(date(2026, 11, 20)), made_at=MADE)
    assert {"Longest wait", "Longest run time"} <= set(tiles(document))
    tables = {table.title: list(table.rows(100)) for table in document.tables}
    assert tables["The jobs"] == [
        ("10:00:00", "etl.load_data", "succeeded", 2.0, 3.0, "j"),
        ("10:00:00", "etl.load_data", "succeeded", 2.0, 3.0, "k"),
        ("10:00:00", "etl.load_data", "queued", None, None, "j"),
    ]
    assert [figure.title for figure in document.figures] == ["Jobs by hour of submission"]
    assert not {"Queues", "Run times", "The 10 longest runs"} & set(tables)
    write_page(document, tmp_path / "day.html")
    assert day_of(*[job()] * FEW).is_brief
    assert not day_of(*[job()] * (FEW + 1)).is_brief


def test_a_day_that_has_not_ended_says_so() -> None:
    """The hour in which the report is made is marked in the charts; the page says until when, of both days."""
    day, noon = day_of(*[job()] * (FEW + 1)), datetime(2026, 11, 21, 12, 20, tzinfo=BERLIN)
    begin, _ = bounds(date(2026, 11, 20), BERLIN)
    before = tallied(begin, noon - timedelta(days=1), [])
    document = described(day, before, made_at=noon.astimezone(UTC))
    assert document.subtitle == (
        "The service until 12:20 of a day that has not ended (Europe/Berlin), against Friday, 20 November until 12:20"
    )
    marked = [figure for figure in document.figures if isinstance(figure.shape, Bars | Lines) and figure.shape.partial]
    assert [figure.title.partition(" by hour")[0] for figure in marked] == ["Jobs", "Wait for a worker"]
    for figure in marked:
        assert isinstance(figure.shape, Bars | Lines)
        assert figure.shape.partial == {12}
        assert figure.note.startswith("Made at 12:20: this hour is not whole")
    ended = described(day, empty(date(2026, 11, 20)), made_at=MADE)
    assert "not ended" not in ended.subtitle
    assert [figure.note for figure in ended.figures] == [""] * 4


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 10, 25), 25), (date(2026, 3, 29), 23)])
def test_a_day_on_which_clocks_change(day: date, hours: int) -> None:
    """An hour that comes twice is there twice; time does not go back along an axis."""
    begin, end = bounds(day, BERLIN)
    now = tallied(begin, end, [job(created_at=int(begin.timestamp() * 1000) + 1)] * (FEW + 1))
    document = described(now, empty(day - timedelta(days=1)), made_at=MADE)
    shapes = {figure.title: figure.shape for figure in document.figures}
    bars, waits = shapes["Jobs by hour of submission"], shapes["Wait for a worker by hour of submission"]
    assert isinstance(bars, Bars)
    assert isinstance(waits, Lines)
    assert len(bars.categories) == len(waits.x) == hours
    assert bars.categories.count("02:00") == hours - 23
    assert waits.x == sorted(waits.x)
