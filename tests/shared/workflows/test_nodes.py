"""Steps get their ids and their order before anything is published."""

from __future__ import annotations

from itertools import count

from shared.jobs.etl import ExtractData, RunPartitioned, RunPipeline
from shared.workflows.nodes import Chain, Chord, StepPlan, lay_out


def plan(name: str) -> StepPlan:
    return StepPlan(name, ExtractData, {})


def order(node: Chain | Chord) -> dict[str, tuple[str, ...]]:
    """Return what each step waits for, by name."""
    numbers = count()
    steps = lay_out(node, lambda: str(next(numbers)))
    names = {step.id: step.plan.name for step in steps}
    return {step.plan.name: tuple(names[before] for before in step.after) for step in steps}


def test_a_chain_waits_one_by_one() -> None:
    """Each step waits for the one before."""
    assert order(Chain(plan("a"), plan("b"), plan("c"))) == {"a": (), "b": ("a",), "c": ("b",)}


def test_a_chord_between_two_steps() -> None:
    """Its parts wait for the step before, its body for all the parts, and the next step for the body."""
    node = Chain(plan("a"), Chord([plan("b"), Chain(plan("c"), plan("d"))], plan("e")), plan("f"))
    assert order(node) == {"a": (), "b": ("a",), "c": ("a",), "d": ("c",), "e": ("b", "d"), "f": ("e",)}


def test_the_workflows_of_the_etl_family() -> None:
    """A pipeline without a transformation has two steps; parts without a destination are only combined."""
    pipeline = RunPipeline.model_validate({**RunPipeline.spec.examples[0], "transform": None})
    parts = RunPartitioned.model_validate(RunPartitioned.spec.examples[0])
    assert [list(order(job.plan())) for job in (pipeline, parts)] == [  # type: ignore[arg-type]
        ["extract", "load"],
        ["extract_0", "extract_1", "combine"],
    ]
