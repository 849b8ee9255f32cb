"""docs/authors/definitions.md says what is refused when a kind is defined: each row of its tables is tried."""

from __future__ import annotations

import re
import sys
import textwrap
import types
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import shared.jobs.etl  # noqa: F401 - rows name its kinds, which are then known before each row gets its own registry
from shared.contract import definition, tasks
from shared.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).resolve().parents[3] / "docs" / "authors" / "definitions.md"
MODULE = "acme_definitions"
_ROW = re.compile(r"^\| (?P<code>.+?) \| (?P<message>.+) \| (?P<verdict>refused|accepted) \|$", re.MULTILINE)

IMPORTS = """
import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Callable, Literal, TypedDict
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel, SecretStr
from pydantic import computed_field, field_serializer, field_validator, model_validator

from celeriac import Artifact, ArtifactUri, Concurrency, Contract, Dataset, FedFromUpstream, Limits, Retry, Run, runs
from celeriac import GroupResult, PlanRefused, Rate, Unique, WorkflowContract, chain, chord, fed_step, group, role, step
"""
RESULT = """
class Shouted(BaseModel):
    '''What was shouted.'''

{body}

class Other(BaseModel):
    '''Another result.'''

    text: str = Field(description="The text.")
"""
RESULT_FIELD = 'text: str = Field(description="The text in capitals.")'
CONTRACT = """
class ShoutText(Contract[Shouted], {keywords}):
    '''Return the text in capitals.'''

{body}
"""
FIELD = 'text: str = Field(description="What to shout.")'
KEYWORDS = {
    "kind": "kind='acme.shout_text'",
    "queue": "queue='etl'",
    "limits": "limits=Limits(soft_s=50, hard_s=60)",
    "examples": "examples=[{'text': 'hello'}]",
}
WORKFLOW = """
class ShoutTwice(WorkflowContract[Shouted], kind="acme.shout_twice", queue="etl",
                 limits=Limits(soft_s=50, hard_s=60), examples=[{{"text": "hello"}}]):
    '''Shout twice.'''

    text: str = Field(description="What to shout.")

    def plan(self):
{body}
"""


class Row(NamedTuple):
    """A row of the page."""

    section: str
    code: str
    message: str
    verdict: str


def rows() -> Iterator[Row]:
    """Yield the rows of the page's tables."""
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title = section.partition("\n")[0]
        for found in _ROW.finditer(section):
            code = "\n".join(re.findall(r"`(.+?)`", found["code"])).replace(r"\|", "|")
            yield Row(title, code, found["message"].strip("`").replace(r"\|", "|"), found["verdict"])


def source(section: str, code: str) -> str:
    """Return a module that is right except for what a row of `section` says."""
    keywords, field, result_field, more = dict(KEYWORDS), FIELD, RESULT_FIELD, ""
    match section:
        case "Class keywords":
            keywords |= {line.partition("=")[0]: line for line in code.splitlines()}
        case "Parameters":
            field = code
        case "Results":
            result_field = code
        case "Workflows":
            more = WORKFLOW.format(body=textwrap.indent(code, " " * 8))
        case "Workflows with `expand()`":
            plan = "    return step('one', ShoutText(text=self.text))"
            more = WORKFLOW.format(body=textwrap.indent(plan, " " * 4)) + textwrap.indent(code, " " * 4)
        case _:
            more = code
    given = ", ".join(line for line in keywords.values() if not line.endswith("=..."))
    result = RESULT.format(body=textwrap.indent(result_field, " " * 4))
    return IMPORTS + result + CONTRACT.format(keywords=given, body=textwrap.indent(field, " " * 4)) + more


def define(section: str, code: str) -> str:
    """Import a definition; return the text with which it was refused, without the names of module and class."""
    module = sys.modules[MODULE] = types.ModuleType(MODULE)
    try:
        exec(compile(source(section, code), "definitions.py", "exec", dont_inherit=True), vars(module))  # noqa: S102 - a row of our page
    except DefinitionError as refused:
        return re.sub(rf"(^|\n){MODULE}\.\w+: ", r"\1", str(refused)).replace("\n", " ").replace(f"{MODULE}.", "")
    finally:
        del sys.modules[MODULE]
    return ""


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: f"{row.section}: {row.code}"[:80])
def test_each_row_of_the_page_is_so(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition that is refused is refused with this text; what is accepted looks as wrong, but works."""
    monkeypatch.setattr(definition, "_kinds", dict(definition._kinds))
    monkeypatch.setattr(tasks, "_tasks", dict(tasks._tasks))
    assert define(row.section, row.code) == (row.message if row.verdict == "refused" else "")


def test_the_page_has_the_whole_table() -> None:
    """Nobody loses rows by a slip in the syntax of a table."""
    assert len(list(rows())) == len(
        re.findall(r"^\| (?!definition|---)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert len([row for row in rows() if row.verdict == "refused"]) >= 57
