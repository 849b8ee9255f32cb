"""What was probably meant, in one way for all messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.contract.spelling import did_you_mean, nearest

ROOT = Path(__file__).parents[3]


def test_a_message_names_what_was_meant_or_what_there_is() -> None:
    """Something close if there is any; else the choice, bounded."""
    assert did_you_mean("etl.extract", ["etl.extract_data", "ml.train_model"]) == "Did you mean 'etl.extract_data'?"
    assert did_you_mean("zzz", ["a", "b"]) == "Known: 'a', 'b'."
    assert did_you_mean("zzz", []) == "Known: none."
    assert did_you_mean("zzz", {f"kind_{n}": n for n in range(1_000)}).endswith(" and 970 more.")
    assert len(did_you_mean("zzz", [f"kind_{n}" for n in range(1_000)])) < 1_000


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("AMOUNT", ["amount", "code"], ["amount"]),
        ("amont", ["Amount", "code"], ["Amount"]),
        ("a", ["A", "a"], ["A"]),  # no more than one of those that differ by case only
        ("x" * 10_000, ["x" * 100], ["x" * 100]),
    ],
)
def test_the_case_of_letters_and_a_long_name_do_not_matter(name: str, known: list[str], near: list[str]) -> None:
    """The known name comes back as it is spelled."""
    assert nearest(name, known) == near


def test_nobody_else_compares_spellings() -> None:
    """`difflib` is imported in one module of the service."""
    importing = [
        str(path.relative_to(ROOT))
        for package in ("api", "cli", "shared", "worker")
        for path in (ROOT / package).rglob("*.py")
        if "difflib" in path.read_text("utf-8")
    ]
    assert importing == ["shared/contract/spelling.py"]
