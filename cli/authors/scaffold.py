"""Write the files of a new kind: contract, task, test, and the project if there is none."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

from shared.contract.spec import KIND_PATTERN
from shared.errors import DefinitionError

_CONTRACT = '''\
"""The contract of $kind."""

from pydantic import BaseModel, Field

from celeriac import Contract, Limits


class ${name}Result(BaseModel):
    """What $kind returns."""

    text: str = Field(description="The text.")


class $name(
    Contract[${name}Result],
    kind="$kind",
    limits=Limits(soft_s=50, hard_s=60),
    examples=[{"text": "hello"}],
):
    """Return a text."""

    text: str = Field(max_length=1_000, description="Any text.")
'''
_TASK = '''\
"""The task of $kind."""

from celeriac import Run
from $family.contracts.$verb import $name, ${name}Result


@$name.task
def $verb(job: $name, run: Run) -> ${name}Result:
    """Return the text; no side effects."""
    run.log("running", length=len(job.text))
    return ${name}Result(text=job.text)
'''
_TEST = '''\
"""Tests of $kind."""

from celeriac.testing import run_task
from $family.contracts.$verb import $name
from $family.tasks.$verb import $verb


def test_$verb() -> None:
    """It returns the text."""
    assert run_task($verb, $name(text="hello")).result.text == "hello"
'''
_PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$family-kinds"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["celeriac"]

[project.optional-dependencies]
worker = ["celeriac[worker]"]
dev = ["celeriac[up]", "mypy", "pytest"]

[project.entry-points."celeriac.kinds"]
$family = "$family.contracts"

[project.entry-points."celeriac.tasks"]
$family = "$family.tasks"

[tool.setuptools.packages.find]
include = ["$family*"]

[tool.mypy]
strict = true
plugins = ["pydantic.mypy"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
"""
_PACKAGES = {
    "$family/__init__.py": '"""The kinds of $family."""\n',
    "$family/contracts/__init__.py": '"""Contracts: a module a kind, for gateway and workers."""\n',
    "$family/tasks/__init__.py": '"""Tasks: a module a kind, for workers."""\n',
    "pyproject.toml": _PROJECT,
}
_KIND = {
    "$family/contracts/$verb.py": _CONTRACT,
    "$family/tasks/$verb.py": _TASK,
    "tests/test_$verb.py": _TEST,
}


def write_kind(kind: str, folder: Path) -> list[Path]:
    """Write what `kind` needs and is not in `folder` yet; return the paths of the files.

    Raises `DefinitionError` for a name that is not `family.verb_noun`, or if a file of the kind is there already.
    """
    if not re.fullmatch(KIND_PATTERN[1:-1], kind):
        raise DefinitionError(f"{kind!r} is not of the form family.verb_noun in lower case, like acme.shout_text.")
    family, _, verb = kind.partition(".")
    words = {"kind": kind, "family": family, "verb": verb, "name": verb.title().replace("_", "")}

    def named(path: str) -> Path:
        return folder / Template(path).substitute(words)

    if there := [str(path) for path in map(named, _KIND) if path.exists()]:
        raise DefinitionError(f"{', '.join(there)} exists already. Choose another name, or another --folder.")
    written = []
    for path, text in {**_PACKAGES, **_KIND}.items():
        if not named(path).exists():
            named(path).parent.mkdir(parents=True, exist_ok=True)
            named(path).write_text(Template(text).substitute(words), encoding="utf-8")
            written.append(named(path))
    return written
