"""What a person types becomes the JSON of a request."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cli.commands.arguments import Mistyped, read_params

if TYPE_CHECKING:
    from pathlib import Path


def test_params_are_json_text() -> None:
    """A JSON object on the command line is taken as it is."""
    expected = {"source": {"kind": "http"}, "count": 3}
    actual = read_params('{"source": {"kind": "http"}, "count": 3}')
    assert expected == actual


def test_params_from_a_file(tmp_path: Path) -> None:
    """`@file` reads the object from a file."""
    (tmp_path / "params.json").write_text('{"text": "grüß"}', encoding="utf-8")
    assert read_params(f"@{tmp_path / 'params.json'}") == {"text": "grüß"}


def test_params_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads the object from standard input."""
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "x"}'))
    assert read_params("-") == {"text": "x"}


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("text=hello", {"text": "hello"}),
        ("text=a=b", {"text": "a=b"}),
        ("text=", {"text": ""}),
        ('text="12"', {"text": "12"}),
        ("count=12", {"count": 12}),
        ("flag=false", {"flag": False}),
        ("source.url=http://x/y?a=1", {"source": {"url": "http://x/y?a=1"}}),
        ('columns=["a"]', {"columns": ["a"]}),
    ],
)
def test_an_assignment_is_json_or_text(assignment: str, expected: dict[str, Any]) -> None:
    """`--set` takes JSON values, and text where it is not JSON; dots nest."""
    assert read_params(None, [assignment]) == expected


def test_assignments_change_what_params_gave() -> None:
    """`--set` goes over --params, into lists too."""
    expected = {"steps": [{"op": "limit", "count": 5}], "mode": "append"}
    actual = read_params('{"steps": [{"op": "limit"}]}', ["steps.0.count=5", "mode=append"])
    assert expected == actual


@pytest.mark.parametrize(
    ("source", "assignments", "named"),
    [
        ("{", [], "the text is not JSON"),
        ("[1]", [], "not a JSON object"),
        ("@/nowhere/params.json", [], "/nowhere/params.json cannot be read"),
        (None, ["novalue"], "--set novalue"),
        (None, ["a..b=1"], "--set a..b=1"),
        ('{"a": 1}', ["a.b=1"], "inside a plain value"),
        ('{"a": [1]}', ["a.1=1"], "not an index of the list. Known: 0 to 0."),
        ('{"a": []}', ["a.0=1"], "none, the list is empty: set it as a whole"),
    ],
)
def test_what_cannot_be_read_is_named(source: str | None, assignments: list[str], named: str) -> None:
    """A mistyped argument is refused with its name and the reason."""
    with pytest.raises(Mistyped, match=named.replace(".", r"\.")):
        read_params(source, assignments)
