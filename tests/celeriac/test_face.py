"""The face that other people's code imports: cheap, complete, typed; and the names that it replaces."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import assert_type

import pytest

import celeriac
from celeriac import Limits, TaskFailure
from shared.contract import definition
from shared.contract.artifacts import ArtifactUri
from shared.contract.names import ConnectionName
from shared.errors import TaskFailure as SharedTaskFailure
from shared.workflows.nodes import Node

OLDER = {
    "shared.contract": ("Contract", "FedFromUpstream", "Limits", "Retry"),
    "shared.workflows": ("Chain", "Chord", "Group", "Node", "WorkflowContract", "fed_step", "step"),
    "shared.artifacts": ("Artifact", "ArtifactUri", "Column", "Dataset"),
    "worker.task": ("Run", "runs"),
}


def _loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `code`."""
    show = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", show], check=True, capture_output=True, text=True).stdout.split())


def test_importing_the_face_loads_nothing() -> None:
    """Neither Pydantic nor Celery nor Redis, nor any code of ours."""
    loaded = _loaded_after("import celeriac")
    assert "celeriac" in loaded
    assert loaded & {"pydantic", "celery", "kombu", "redis", "httpx", "api", "shared", "worker", "cli"} == set()


def test_the_application_for_django_can_be_named_before_django_is_set_up() -> None:
    """Django imports the package of an application first, then its models."""
    assert _loaded_after("import celeriac.django") & {"django", "pydantic", "httpx", "shared"} == set()


def test_contracts_load_no_worker_code() -> None:
    """A gateway that imports somebody's contracts has no worker."""
    names = ", ".join(name for name in celeriac.__all__ if name not in {"Run", "runs"})
    assert "worker" not in _loaded_after(f"from celeriac import {names}")


def test_contracts_cost_little_more_than_pydantic() -> None:
    """Whoever imports contracts pays for no store, no Redis and no Celery, which took half of the time."""
    names = "celeriac.Artifact, celeriac.Contract, celeriac.TaskFailure"
    loaded = _loaded_after(f"import celeriac, tests.acme.contracts; {names}")
    assert loaded & {"fsspec", "redis", "celery", "kombu", "asyncio", "pydantic_settings"} == set()


@pytest.mark.parametrize("name", celeriac.__all__)
def test_each_name_is_the_very_thing(name: str) -> None:
    """It is what our own code uses, so that what somebody subclasses or raises is recognised."""
    thing = getattr(celeriac, name)
    if name in {"ArtifactUri", "ConnectionName", "Node"}:  # types that are not classes do not know their module
        assert thing in (ArtifactUri, ConnectionName, Node)
        return
    assert getattr(import_module(thing.__module__), thing.__name__) is thing
    assert thing.__module__.partition(".")[0] in {"shared", "worker"}


def test_the_face_says_what_it_has() -> None:
    """In `dir`, and where somebody asks for what is not there."""
    assert dir(celeriac) == sorted(celeriac.__all__)
    with pytest.raises(AttributeError, match=r"no attribute 'Contracts'; it has Artifact, ArtifactUri, "):
        _ = celeriac.Contracts


def test_types_are_seen_through_the_face() -> None:
    """For mypy, which checks this file, the names are the classes, not Any."""
    assert_type(Limits(soft_s=1, hard_s=2), definition.Limits)
    assert_type(TaskFailure("full", "The cup is full."), SharedTaskFailure)


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in OLDER.items() for name in names])
def test_what_older_code_imports_is_still_there(module: str, name: str) -> None:
    """Contracts and tasks that were written before there was a face go on working."""
    assert getattr(import_module(module), name) is not None


def test_contracts_need_no_client() -> None:
    """Nor does the client need a worker, or the celery of one."""
    assert "httpx" not in _loaded_after("import celeriac.testing")
    assert _loaded_after("import celeriac.client") & {"worker", "celery", "kombu", "redis", "api", "cli"} == set()
