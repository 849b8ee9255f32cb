"""Options made from the fields of a model: what is typed arrives under the field's name, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from cli.app import app
from cli.commands.fields import OptionsOf, with_options
from shared.contract.options import RunOptions, SubmissionOptions
from shared.ledger.calling.filters import JobCriteria
from shared.ledger.states import State


class Wishes(BaseModel):
    """One field of each type that a model of options has."""

    level: int | None = Field(default=3, ge=0, le=9, description="How much.")
    wait_s: float | None = Field(default=None, description="How long.")
    word: str | None = Field(default=None, description="What.")
    marks: list[str] = Field(default=[], description="With what.")
    state: list[State] = Field(default=[], description="In which state.")


def typed(*words: str) -> dict[str, Any]:
    """Return what a command gets of these words. Raises `AssertionError` with the refusal."""
    got: list[dict[str, Any]] = []
    small = typer.Typer(pretty_exceptions_enable=False)

    @small.command()
    @with_options
    def command(*, wishes: Annotated[dict[str, Any], OptionsOf(Wishes)], name: str = "x") -> None:
        got.append(wishes | {"name": name})

    answered = CliRunner().invoke(small, words)
    assert answered.exit_code == 0, answered.output
    return got[0]


def test_what_was_given_arrives_and_nothing_else() -> None:
    """The gateway has the defaults; a zero is given. A list's option has the singular and can be repeated."""
    assert typed() == {"name": "x"}
    words = ("--level", "0", "--wait-s", "1.5", "--word", "a", "--mark", "b", "--mark", "c", "--state", "failed")
    expected = {"level": 0, "wait_s": 1.5, "word": "a", "marks": ["b", "c"], "state": ["failed"], "name": "x"}
    assert typed(*words) == expected


def test_bounds_are_checked_before_anything_is_sent() -> None:
    """What the field's type or bounds refuse is a usage error that names the option."""
    with pytest.raises(AssertionError, match="--level"):
        typed("--level", "10")
    with pytest.raises(AssertionError, match="--wait-s"):
        typed("--wait-s", "soon")


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (("submit",), SubmissionOptions),
        (("schedules", "create"), RunOptions),
        (("schedules", "update"), RunOptions),
        (("list",), JobCriteria),
        (("cancel",), JobCriteria),
        (("rerun",), JobCriteria),
    ],
)
def test_every_field_is_an_option_with_its_description(words: tuple[str, ...], model: type[BaseModel]) -> None:
    """A new option or criterion is on the command line as soon as its field is there."""
    shown = " ".join(CliRunner().invoke(app, [*words, "--help"]).output.split())
    for name, field in model.model_fields.items():
        flag = "--" + (name.removesuffix("s") if field.default == [] else name).replace("_", "-")
        about = shown.partition(f" {flag} <")[2].partition(" --")[0]
        assert str(field.description) in about, name
    assert ("One of: scheduled, queued, " in shown) == (model is JobCriteria)


def test_the_command_line_is_ready_without_the_service() -> None:
    """Its options come from the contract package; Celery, Redis and file systems would take as long as all the rest."""
    program = "import sys, cli.app; print(*{'celery', 'redis', 'fsspec', 'fastapi'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
