"""The page on generated clients: every generator is complete, and its versions are said once."""

from __future__ import annotations

import re

import pytest

from tests.clients.bodies import bodies
from tests.clients.page import ROOT, Generator, generators


@pytest.mark.parametrize("generator", generators(), ids=lambda one: one.name)
def test_a_generator_has_all_phases_and_a_version(generator: Generator) -> None:
    """Each is installed in a known version, generates, compiles and is used."""
    assert generator.commands.keys() == {"install", "generate", "compile", "use"}
    assert generator.versions


def test_the_version_is_the_one_that_tests_have() -> None:
    """Of the generator that is among our requirements, whose commands run with the other pages."""
    python = next(one for one in generators() if one.name == "openapi-python-client")
    locked = re.search(r"^openapi-python-client==(\S+)", (ROOT / "requirements" / "dev.txt").read_text(), re.MULTILINE)
    assert locked is not None
    assert python.versions["openapi-python-client"] == locked[1]


def test_bodies_are_those_of_readme_and_of_every_kind() -> None:
    """So that a kind without an example, or another way to write README, does not leave the clients untried."""
    assert {"etl.run_pipeline", "ml.tune_model", "workflow.chord"} <= {body["kind"] for body in bodies()}
    assert len(bodies()) > 25
