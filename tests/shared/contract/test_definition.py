"""A contract says all of a kind; a wrong one fails when it is defined, with what to do about it."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from shared.contract.artifacts import ArtifactUri
from shared.contract.catalogue import Catalogue, catalogue
from shared.contract.definition import Contract, FedFromUpstream, Limits
from shared.errors import DefinitionError

LIMITS = Limits(soft_s=50, hard_s=60)
_numbers = itertools.count()


class Shouted(BaseModel):
    """A result."""

    text: str = Field(description="The text in capitals.")


class Undescribed(BaseModel):
    """A result with a field that nobody described."""

    text: str


def new_kind() -> str:
    """Return a kind that no other test has defined."""
    return f"etl.shout_{next(_numbers)}"


def define(name: str = "Shout", *, result: type[BaseModel] | None = Shouted, **changes: Any) -> Any:
    """Define a contract that is right except for `changes`: class keywords, `doc`, or a replacement for `text`."""
    text, annotation = changes.pop("text", Field(description="What to shout.")), changes.pop("annotation", str)
    doc = changes.pop("doc", "Return the text in capitals.")
    keywords = {"kind": new_kind(), "limits": LIMITS, "examples": [{"text": "hi"}]} | changes
    base: Any = Contract if result is None else Contract[result]  # type: ignore[valid-type]  # chosen at run time
    body = {"__doc__": doc, "__annotations__": {"text": annotation}, "text": text, "__module__": __name__}
    return type(base)(name, (base,), body, **{k: v for k, v in keywords.items() if v is not ...})


def test_what_kinds_share_is_looked_at_once() -> None:
    """Every start defines every kind, and the steps and expressions of tables are in many."""
    looks = []

    def look() -> list[str]:
        looks.append("a default")
        return ["hi"]

    class Loud(BaseModel):
        """Part of the results of two kinds."""

        words: list[str] = Field(default_factory=look, description="The words.")

    class One(BaseModel):
        """A result."""

        loud: Loud = Field(description="All of it.")

    class Other(BaseModel):
        """Another result."""

        loud: Loud = Field(description="All of it.")

    define(result=One)
    once = len(looks)
    assert once > 0
    define(result=Other)
    assert len(looks) == once


def test_right_definition_has_its_spec() -> None:
    """Queue and family come from the kind; summary and description from the docstring."""
    kind = new_kind()
    spec = define(kind=kind, doc="Return the text in capitals.\n\n    At length.").spec
    assert (spec.kind, spec.family, spec.queue, spec.result) == (kind, "etl", "etl", Shouted)
    assert (spec.summary, spec.description) == ("Return the text in capitals.", "At length.")


@pytest.mark.parametrize(
    ("changes", "what", "hint"),
    [
        ({"kind": "Shout"}, "family.verb_noun", "lower case"),
        ({"kind": "etl.extract_data"}, "already defined by shared.jobs.etl.ExtractData", "choose another"),
        ({"queue": "elt"}, "the queue 'elt' is unknown", "CELERIAC_QUEUES"),
        ({"kind": "acme.shout_text"}, "the queue 'acme' is unknown", "etl, ml, report, maintenance"),
        ({"limits": ...}, "no hard time limit", "limits=Limits("),
        ({"limits": Limits(soft_s=60, hard_s=60)}, "not below its hard limit", "clean up"),
        ({"doc": ""}, "no docstring", "summary"),
        ({"examples": []}, "no example", "examples=["),
        ({"examples": [{"text": 1}]}, "example 0 is not valid", "Fix"),
        ({"examples": [{"text": "hi"}, {"texts": "hi"}]}, "example 1 is not valid", "Fix"),
        ({"text": Field()}, "Shout.text has no description", "description="),
        ({"result": Undescribed}, "Undescribed.text has no description", "description="),
        ({"annotation": Any}, "any type", "Give it a type"),
        ({"result": None}, "has no result type", "Contract[YourResult]"),
        ({"idempotent_by": ("txt",)}, "txt", "'text'"),
    ],
)
def test_wrong_definition_fails_with_a_hint(changes: dict[str, Any], what: str, hint: str) -> None:
    """The error names the class, what is wrong and how to fix it."""
    with pytest.raises(DefinitionError) as refused:
        define(**changes)
    assert f"{__name__}.Shout" in str(refused.value)
    assert what in str(refused.value)
    assert hint in str(refused.value)


def test_refused_kind_stays_free() -> None:
    """A definition that failed does not take the name from the one that fixes it."""
    kind = new_kind()
    with pytest.raises(DefinitionError):
        define("Broken", kind=kind, examples=[])
    assert define("Fixed", kind=kind).spec.kind == kind


def test_queues_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """`CELERIAC_QUEUES` names queues beside one a family."""
    monkeypatch.setenv("CELERIAC_QUEUES", "gpu, express")
    assert define(queue="gpu").spec.queue == "gpu"


def test_kinds_of_a_queue_say_the_same_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has one number; a kind that says nothing takes that of the others."""
    monkeypatch.setenv("CELERIAC_QUEUES", "sim")
    first = define(queue="sim", processes=2)
    assert define(queue="sim").spec.processes is None
    assert define(queue="sim", processes=2).spec.processes == 2
    with pytest.raises(DefinitionError, match=r"sets processes=3, and .*, of its queue, 2\. Set the same number"):
        define("Other", queue="sim", processes=3)
    assert Catalogue([first]).processes() == {"sim": 2}


@pytest.mark.parametrize("params", ['{"text": 1}', '{"text": true}', '{"text": "hi", "more": 1}', "{}", "[]"])
def test_parameters_are_strict(params: str) -> None:
    """Nothing is coerced, nothing ignored."""
    with pytest.raises(ValidationError):
        define().model_validate_json(params)


def test_idempotency_key_is_the_job_or_the_chosen_parameters() -> None:
    """By default a job is its own key; with `idempotent_by`, equal parameters are one."""
    by_job, by_text = define(), define(idempotent_by=("text",))
    assert by_job(text="a").idempotency_key("job-1") == "job-1"
    assert by_text(text="a").idempotency_key("job-1") == by_text(text="a").idempotency_key("job-2")
    assert by_text(text="a").idempotency_key("job-1") != by_text(text="b").idempotency_key("job-1")


def test_fed_parameter_is_found() -> None:
    """The parameter that a step before feeds is marked."""
    uri = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/a.parquet"
    fed = define(annotation=Annotated[ArtifactUri, FedFromUpstream("dataset")], examples=[{"text": uri}])
    assert fed.fed_parameters() == {"text": FedFromUpstream("dataset")}
    assert define().fed_parameters() == {}


@pytest.mark.parametrize("kind", sorted(catalogue()))
def test_parameters_survive_the_journey(kind: str) -> None:
    """Every example is the same after the gateway's JSON as before it: nothing is lost on the way to the worker."""
    for example in catalogue()[kind].spec.examples:
        job = catalogue()[kind].model_validate_json(json.dumps(example))
        assert catalogue()[kind].model_validate_json(job.model_dump_json()) == job


def test_families_are_parts_of_the_catalogue() -> None:
    """A worker loads whole families."""
    assert set(catalogue().families(["etl"])) == {kind for kind in catalogue() if kind.startswith("etl.")}
    assert len(catalogue().families([])) == 0


ACME = """
from pydantic import BaseModel, Field
from shared.contract.definition import Contract, Limits

class Shouted(BaseModel):
    text: str = Field(description="The text in capitals.")

class Shout(Contract[Shouted], kind="acme.shout_text", queue="etl", limits=Limits(soft_s=50, hard_s=60),
            examples=[{"text": "hi"}]):
    '''Return the text in capitals.'''
    text: str = Field(description="What to shout.")
"""


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=300, check=False)


def test_the_page_on_what_a_contract_says_has_a_right_one() -> None:
    """What people copy from it is accepted."""
    page = (Path(__file__).parents[3] / "docs" / "authors" / "contracts.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown = run(f"{code}\nprint(ImportOrders.spec.concurrency)")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "limit=1 by=['shop']\n", "")


def test_contracts_of_another_package_are_loaded_from_outside(tmp_path: Path) -> None:
    """`CELERIAC_CONTRACTS` names packages; all modules below them count, and what they import does not."""
    package = tmp_path / "acme" / "contracts"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from shared.jobs.etl import ExtractData\n")
    (package / "shouting.py").write_text(ACME)
    code = "from shared.contract.catalogue import catalogue; print(*catalogue())"
    shown = run(code, CELERIAC_CONTRACTS="acme.contracts", PYTHONPATH=str(tmp_path))
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "acme.shout_text\n", "")
    both = run(code, CELERIAC_CONTRACTS="shared.jobs, acme.contracts", PYTHONPATH=str(tmp_path))
    assert both.stdout.split() == ["acme.shout_text", *sorted(catalogue())]


@pytest.mark.parametrize(
    ("module", "hint"), [("acme_missing", "PYTHONPATH"), ("shared.ledger.states", "defines no contract")]
)
def test_wrong_module_is_named(module: str, hint: str) -> None:
    """A typo in `CELERIAC_CONTRACTS` is not an empty catalogue."""
    with pytest.raises(DefinitionError, match=hint) as refused:
        Catalogue.load([module])
    assert module in str(refused.value)


def test_contracts_import_without_heavy_libraries() -> None:
    """Whoever only submits needs neither the gateway's nor the workers' libraries."""
    shown = run(
        """
        import sys
        for name in "fastapi starlette pandas numpy sklearn duckdb pyarrow httpx worker api".split():
            sys.modules[name] = None
        from shared.contract.catalogue import catalogue
        import shared.broker.celery, shared.ledger.client, shared.broker.messages, shared.connections.settings
        shared.broker.celery.make_celery(shared.broker.settings.BrokerSettings())
        print(len(catalogue()))
        """
    )
    assert (shown.returncode, shown.stderr, int(shown.stdout)) == (0, "", len(catalogue()))
