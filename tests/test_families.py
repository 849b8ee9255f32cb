"""The register of families is the whole truth: what a registered family needs is there, and no family is beside it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.trial_jobs import JOBS
from shared.contract.catalogue import Catalogue
from shared.contract.families import FAMILIES, Family, with_those_also_run
from shared.workflows.definition import WorkflowContract
from tests.support.images import copies_of

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
RULES: list[dict[str, Any]] = PROJECT["tool"]["importlinter"]["contracts"]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def _faults(family: Family) -> list[str]:
    """Return in words what is missing for a family that is registered."""
    name, extra = family.name, EXTRAS.get(family.name)
    needed = {
        f"worker/{name}/tasks.py, with its tasks, is missing": (ROOT / "worker" / name / "tasks.py").is_file(),
        f"no contract in shared/jobs is of the family {name}": name in _families_of_contracts(),
        f"pyproject.toml has no extra {name} with the packages that its tasks import": extra is not None,
        f"requirements/worker-{name}.txt is missing: make lock": (ROOT / f"requirements/worker-{name}.txt").is_file(),
        f"docker-compose.yml has no service worker-celery-{name}": f"worker-celery-{name}" in SERVICES,
        f"import-linter does not keep worker.{name} apart from other families": name in _independent(),
        f"import-linter lets the computation of worker.{name} import Celery": f"worker.{name}.**" in _without_celery(),
        f"deploy/trial_jobs.py has no job that tries the image of {name}": name in JOBS,
    } | {
        f"the extra {name} lacks celeriac[{other}], whose tasks its workers also run": f"celeriac[{other}]" in extra
        for other in family.also_runs
        if extra is not None
    }
    return [what for what, there in needed.items() if not there] + list(_faults_of_image(family))


def _faults_of_image(family: Family) -> Iterator[str]:
    copied = copies_of(family.name)
    if copied is None:
        yield f"Dockerfile.worker has no stage for-{family.name}"
        return
    of_all = copies_of(family.name, "beat") or []
    parts = ["worker/tables/__init__.py"] if any(part != "." for part in family.tables) else []
    expected = {*of_all, *family.folders, *parts}
    for path in sorted(expected - set(copied)):
        yield f"Dockerfile.worker, stage for-{family.name}, does not copy {path}"
    for path in sorted(set(copied) - expected):
        yield f"Dockerfile.worker, stage for-{family.name}, copies {path}, which the register does not name"


def _families_of_contracts() -> set[str]:
    """Return the families of our kinds. A workflow is run by its steps' families."""
    contracts = Catalogue.load(["shared.jobs"]).values()
    return {contract.spec.family for contract in contracts if not issubclass(contract, WorkflowContract)}


def _independent() -> set[str]:
    """Return the rooms of `worker` that stand beside etl: none of them imports another."""
    layers = next(rule["layers"] for rule in RULES if rule.get("containers") == ["worker"])
    return next(rooms for layer in layers if "etl" in (rooms := set(re.split(r" *\| *", layer))))


def _without_celery() -> set[str]:
    """Return the modules that must not import Celery."""
    return next(set(rule["source_modules"]) for rule in RULES if "worker.tables.**" in rule.get("source_modules", ()))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_registered_family_has_all_it_needs(family: Family) -> None:
    """What is missing is said in words."""
    assert _faults(family) == []


def test_what_a_new_family_lacks_is_said() -> None:
    """The test above can fail: it names each thing, and the file that it is missing from."""
    told = "\n".join(_faults(Family("postal", also_runs=("etl",))))
    for place in ("worker/postal/tasks.py", "shared/jobs", "extra postal", "requirements/worker-postal.txt"):
        assert place in told
    for place in ("stage for-postal", "service worker-celery-postal", "import-linter", "deploy/trial_jobs.py"):
        assert place in told


def test_parts_of_tables_that_the_image_lacks_or_has_too_many_are_said() -> None:
    """The register is compared with what the stages copy."""
    assert list(_faults_of_image(Family("ml", tables=("duck",), pages=True))) == [
        "Dockerfile.worker, stage for-ml, does not copy worker/tables/duck",
        "Dockerfile.worker, stage for-ml, copies worker/tables/parquet, which the register does not name",
    ]


def test_no_family_is_beside_the_register() -> None:
    """Folders with tasks, requirements, services and trial jobs belong to registered families."""
    assert {path.parent.name for path in (ROOT / "worker").glob("*/tasks.py")} == set(FAMILIES)
    locks = {path.stem.removeprefix("worker-") for path in (ROOT / "requirements").glob("worker-*.txt")}
    assert locks == set(FAMILIES)
    assert _families_of_contracts() == set(FAMILIES)
    assert set(JOBS) == set(FAMILIES)
    assert _independent() == set(FAMILIES)


def test_parts_of_tables_are_there() -> None:
    """What the register names of worker/tables is a folder of it."""
    for family in FAMILIES.values():
        assert [path for path in family.folders if not (ROOT / path).is_dir()] == []


def test_whose_messages_lie_in_a_queue_is_known() -> None:
    """A family that runs another's old messages loads its tasks once, and a family of others only its own."""
    assert with_those_also_run(["maintenance"]) == ["maintenance", "callbacks"]
    assert with_those_also_run(["callbacks", "maintenance", "acme"]) == ["callbacks", "maintenance", "acme"]
