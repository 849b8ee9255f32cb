"""The account of `make chaos` finds what it is there to find."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.harness.facts import Facts


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.txt"


def _write(journal: Path, *lines: str) -> Facts:
    journal.write_text("".join(f"{line}\n" for line in lines))
    return Facts.read(journal)


def _alive(attempt: int, *, began_at: float, ticks: int) -> list[str]:
    who = f"job {attempt} {attempt}0 1 label"
    return [f"{began_at:.3f} began {who}", *(f"{began_at + 0.1 * tick:.3f} alive {who}" for tick in range(1, ticks))]


def test_a_job_that_ran_once_is_all_right(journal: Path) -> None:
    """It began, lived, ended and was settled."""
    facts = _write(
        journal, *_alive(1, began_at=1, ticks=9), "2.0 ended job 1 10 1 label", "2.1 settled job 0 10 1 label"
    )
    assert (facts.run_after_success(), facts.side_by_side(), facts.recoveries()) == ([], [], [])
    assert facts.labels("ended") == {"label"}
    assert facts.job_ids() == {"label": {"job"}}


def test_a_run_after_success_is_found(journal: Path) -> None:
    """What begins after the success was written down is found; what ran before is not."""
    first = [*_alive(1, began_at=1, ticks=3), *_alive(2, began_at=3, ticks=3)]
    assert _write(journal, *first, "3.5 settled job 0 20 1 label").run_after_success() == []
    late = _write(journal, *first, "2.5 settled job 0 20 1 label")
    assert late.run_after_success() == ["job"]


def test_runs_side_by_side_are_found(journal: Path) -> None:
    """Both showed life for a second. One that was frozen meanwhile and stopped as it thawed did not."""
    assert _write(journal, *_alive(1, began_at=1, ticks=30), *_alive(2, began_at=2, ticks=10)).side_by_side() == ["job"]
    busy = _write(journal, *_alive(1, began_at=1, ticks=30), *_alive(2, began_at=2, ticks=10))
    assert busy.side_by_side(lambda _, since, until: until - since) == []  # its worker did not get to stop it
    thawed = "9.000 alive job 1 10 1 label"
    facts = _write(journal, *_alive(1, began_at=1, ticks=5), *_alive(2, began_at=5, ticks=80), thawed)
    assert facts.side_by_side() == []


def test_a_recovery_counts_from_the_last_tick(journal: Path) -> None:
    """Of a run that was cut off, not of one that said itself that it failed."""
    cut_off = _alive(1, began_at=1, ticks=11)
    (recovery,) = _write(journal, *cut_off, *_alive(2, began_at=7, ticks=2)).recoveries()
    assert recovery == ("job", 2.0, 7.0, 1)
    failed = "2.100 failed job 1 10 1 label"
    assert _write(journal, *cut_off, failed, *_alive(2, began_at=7, ticks=2)).recoveries() == []


def test_a_line_that_is_just_being_written_is_left_out(journal: Path) -> None:
    """The journal is read while runs write it."""
    journal.write_text("1.000 began job 1 10 1 label\n1.1")
    assert Facts.read(journal).all_runs()[0].seen_at == [1.0]
