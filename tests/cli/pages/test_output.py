"""Jobs, kinds and problems as text."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from api.kinds.routes import get_job_kind
from cli.pages.kind import show_kind
from cli.pages.output import amount, log_line, progress_text, show_error, show_problem
from shared.contract.catalogue import catalogue
from tests.support.up import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = {
    "churn_pipeline.json": "ml.run_pipeline",
    "daily_sales.json": "etl.run_pipeline",
    "monthly_report.json": "workflow.chain",
    "months_in_parallel.json": "etl.run_partitioned",
    "orders_sync.json": "maintenance.sync_data",
}


@pytest.fixture
def paper() -> Console:
    """Return a console that writes into memory."""
    return Console(file=io.StringIO(), soft_wrap=True, highlight=False)


def written(paper: Console) -> str:
    """Return what was written."""
    assert isinstance(paper.file, io.StringIO)
    return paper.file.getvalue()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_234_567, "rows", "1,234,567 rows"),
        (0, "bytes", "0 bytes"),
        (1_023, "bytes", "1,023 bytes"),
        (1_536, "bytes", "1.5 KiB"),
        (5 * 1024**5, "bytes", "5,120.0 TiB"),
    ],
)
def test_amounts_have_units(value: float, unit: str, expected: str) -> None:
    """Counts have separators; sizes are in the largest binary unit below them."""
    assert amount(value, unit) == expected


@pytest.mark.parametrize(
    ("current", "total", "message", "expected"),
    [
        (50, 200, "", "25 % of 200 rows"),
        (50, None, "", "50 rows"),
        (50, 0, "", "50 rows"),
        (50, 100, "sorting", "50 % of 100 rows, sorting"),
    ],
)
def test_progress_in_words(current: int, total: int | None, message: str, expected: str) -> None:
    """A share where the total is known, else a count."""
    progress = {"current": current, "total": total, "unit": "rows", "message": message}
    assert progress_text(progress) == expected


def test_without_progress_there_are_not_any_words() -> None:
    """A job that has not reported says nothing."""
    assert progress_text(None) == ""


def test_a_log_line_has_its_step_and_fields() -> None:
    """Time, level, step, message and fields on one line."""
    line = {"at": "T", "level": "info", "step": "load", "message": "done", "fields": {"rows": 3}}
    assert log_line(line) == "T info load done rows=3"


def test_text_of_others_is_not_markup(paper: Console) -> None:
    """Square brackets in a server's text stay as they are."""
    problem = {"title": "Bad", "code": "bad", "errors": [{"pointer": "/a", "message": "[red]not markup[/red]"}]}
    show_problem(422, problem, paper)
    assert "/a: [red]not markup[/red]" in written(paper)


@pytest.mark.parametrize("kind", sorted(catalogue()))
def test_every_kind_has_a_page(kind: str, paper: Console) -> None:
    """Each kind shows all its parameters, and an example that is its first."""
    document: dict[str, Any] = json.loads(asyncio.run(get_job_kind(kind)).model_dump_json())
    show_kind(document, paper)
    page = written(paper)
    for name, field in document["params_schema"]["properties"].items():
        assert f"  {name} " in page
        assert field.get("description", "")[:40] in page
    assert json.dumps(document["examples"][0]) in page


@pytest.mark.parametrize(("name", "kind"), EXAMPLES.items())
def test_the_examples_are_valid(name: str, kind: str) -> None:
    """The files in examples/ are parameters of the kinds they are for."""
    catalogue()[kind].model_validate_json((ROOT / "examples" / name).read_text(encoding="utf-8"))


def test_no_example_is_forgotten() -> None:
    """Every JSON file in examples/ is checked."""
    found: list[Path] = list((ROOT / "examples").glob("*.json"))
    assert {path.name for path in found} == set(EXAMPLES)


def test_somebodys_text_does_not_steer_the_terminal(paper: Console) -> None:
    """A column's name or a log line of a job may hold escape sequences; they are shown, not obeyed."""
    show_error({"code": "c", "message": "a\x1b[2Jb\x9bc", "remedy": ""}, paper)
    show_problem(422, {"errors": [{"pointer": "/p", "message": "a\x1b]0;b"}]}, paper)
    line = log_line({"at": "T", "level": "info", "message": "x\x1b[1m", "fields": {"file": "y\x07"}})
    assert not {"\x1b", "\x9b", "\x07"} & set(written(paper) + line)
    assert "a\ufffd[2Jb\ufffdc" in written(paper)
