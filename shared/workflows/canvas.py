"""Convert the steps of a workflow to Celery's canvas: chain, group, chord, map, starmap, chunks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from celery import Celery, chain, chord, group
from celery.canvas import chunks, xmap, xstarmap

from shared.broker.messages import PARAMS_SHOWN, Composer, MessageOptions
from shared.workflows.nodes import Chain, Chord, Chunks, MapStep, Node, PlannedStep, StepPlan, links

# Options of the inner signature of a map or starmap:
PARAMETERS = "celeriac_parameters"  # the names of the values of an item
ITEM_LIMITS = "celeriac_item_limits"  # the soft and the hard time limit of each item, in seconds

#: Returns the signature of one run of the contract of a step, and the options of the message of the step.
Signer = Callable[[PlannedStep], tuple[Any, dict[str, Any]]]


def workflow_messages(
    composer: Composer, node: Node, steps: Sequence[PlannedStep], options: Mapping[str, MessageOptions], *, job_id: str
) -> dict[str, str]:
    """Return the messages that start a workflow, by step id; `options` are by step id, too.

    Blocks: see `Composer.canvas`.
    """

    def sign(step: PlannedStep) -> tuple[Any, dict[str, Any]]:
        chosen, spec, params = options[step.id], step.plan.contract.spec, copy.deepcopy(step.plan.params)
        return composer.app.signature(spec.kind, kwargs=params, immutable=True), {
            "task_id": step.id,
            "queue": spec.queue,
            "priority": composer.wire_priority(chosen.priority),
            "time_limit": chosen.hard_limit_s,
            "soft_time_limit": chosen.soft_limit_s,
            "kwargsrepr": json.dumps(params)[:PARAMS_SHOWN],
        }

    return composer.canvas(to_canvas(node, iter(steps), sign, composer.app, job_id=job_id), job_id)


def to_canvas(node: Node, steps: Iterator[PlannedStep], sign: Signer, app: Celery, *, job_id: str) -> Any:
    """Return `node` as a Celery canvas; `steps` are those of `lay_out`, in the same order."""

    def convert(node: Node) -> Any:
        match node:
            case StepPlan():
                return _single(node, *sign(next(steps)), app)
            case Chunks():
                return _chunked(node, steps, sign, app)
            case Chain():
                return chain(*_upgraded(map(convert, links(node)), app, job_id), app=app)
            case Chord():
                header = group(list(map(convert, node.header)), app=app)
                return chord(header, convert(node.body), app=app)
            case _:
                return group(list(map(convert, node.nodes)), app=app)

    return convert(node)


def _upgraded(steps: Iterable[Any], app: Celery, job_id: str) -> list[Any]:
    """Return the steps of a chain, each group that others follow as the chord that Celery makes of it.

    Celery does it itself, but lays out all that follows again for each of them: 450 groups took half a minute.
    """
    upgraded: list[Any] = []
    options: dict[str, Any] = {"root_id": job_id}
    for step in reversed(list(steps)):
        is_header = upgraded and isinstance(step, group) and len(step.tasks) > 1
        upgraded.append(chord(step, upgraded.pop(), app=app).set(**options) if is_header else step)
    return upgraded[::-1]


def _single(plan: StepPlan, signature: Any, options: dict[str, Any], app: Celery) -> Any:
    if not isinstance(plan, MapStep):
        return signature.set(**options)
    mapped = xmap if plan.names is None else xstarmap
    return mapped(_with_options(signature, plan), list(plan.items), app=app).set(**options)


def _chunked(node: Chunks, steps: Iterator[PlannedStep], sign: Signer, app: Celery) -> Any:
    signed = [sign(next(steps)) for _ in node.parts()]
    made: Any = chunks(_with_options(signed[0][0], node.whole), list(node.whole.items), node.size, app=app).group()
    for part, (_, options) in zip(made.tasks, signed, strict=True):
        part.set(**options)
    return made


def _with_options(signature: Any, plan: MapStep) -> Any:
    """Return the inner signature with what a worker has to know of the items; without options that are not given."""
    limits = plan.item_limits
    options = {PARAMETERS: plan.names, ITEM_LIMITS: limits and [limits.soft_s, limits.hard_s]}
    return signature.set(**{name: value for name, value in options.items() if value is not None})
