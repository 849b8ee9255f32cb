"""Convert checked parameters and options to entries of the ledger: ids, queues, limits, messages, steps.

A job is planned once: `prepare` lays its steps out, and all later checks and the acceptance use its result.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import to_json

from shared.broker.messages import Composer, MessageOptions
from shared.broker.settings import BrokerSettings
from shared.contract.definition import AnyContract, Contract
from shared.contract.keys import counted_by, counts_under, key_of
from shared.contract.options import RunOptions, SubmissionOptions
from shared.contract.versions import fingerprint
from shared.ledger.ids import uuid7
from shared.ledger.records import Entry, Record
from shared.ledger.states import State
from shared.workflows.assembly import CanvasContract
from shared.workflows.canvas import workflow_messages
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import (
    Expansion,
    MapStep,
    Node,
    Path,
    PlannedStep,
    PlanProblem,
    PlanRefused,
    StepPlan,
    ends_in_parallel,
    without,
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job with its options, and for a workflow the steps with their ids."""

    job: Contract[Any]
    options: RunOptions
    node: Node | None = None  # None: a single job, or a workflow with problems
    steps: Sequence[PlannedStep] = ()
    problems: Sequence[PlanProblem] = ()  # of the parameters of a workflow
    elements: Sequence[tuple[Path, Contract[Any]]] = ()  # the jobs in its parameters, with their paths


def prepare(job: Contract[Any], options: RunOptions) -> Prepared:
    """Return the job with its steps laid out. Takes about a second of CPU time for the largest workflow."""
    if isinstance(job, CanvasContract):
        node, steps, elements = job.with_elements()
        if elements.problems:
            return Prepared(job, options, problems=elements.problems, elements=elements.jobs)
        return Prepared(job, options, node, steps, elements=elements.jobs)
    if isinstance(job, WorkflowContract):
        try:
            node, steps = job.laid_out()
        except PlanRefused as refused:
            return Prepared(job, options, problems=refused.problems)
        return Prepared(job, options, node, steps)
    return Prepared(job, options)


class Planner:
    """Creates entries of prepared jobs, for the gateway, beat and the keeper."""

    def __init__(self, settings: BrokerSettings, composer: Composer) -> None:
        self._composer = composer
        self._service_policy = {
            "retention_ms": int(settings.retention_s * 1000),
            "outbox": not settings.shares_redis,
        }

    def entry(
        self,
        prepared: Prepared,
        *,
        job_id: str | None = None,
        reusing: Record | None = None,
        **lineage: str,
    ) -> Entry:
        """Return the entry of a job with its messages. Blocks for a workflow: see `workflow_messages`.

        `lineage` are the fields of `Entry` for the origin of the job. For a workflow, the steps that succeeded in the
        job `reusing` do not run again: their results are reused.
        Raises `PlanRefused` if the job was prepared with problems.
        """
        if prepared.problems:
            raise PlanRefused(prepared.problems)
        if prepared.node is None:
            return self._single(prepared.job, prepared.options, job_id or uuid7(), lineage)
        done = _done(prepared.steps, reusing.steps) if reusing else {}
        return self._workflow(prepared, prepared.node, job_id or uuid7(), lineage, done)

    def warm_up(self, contract: AnyContract) -> None:
        """Create the message template and the fingerprint of a kind; this takes milliseconds."""
        fingerprint(contract)
        self._composer.message(contract, uuid7(), "{}", limits_of(contract, RunOptions()), queue=contract.spec.queue)

    def _single(self, job: Contract[Any], options: RunOptions, job_id: str, lineage: dict[str, Any]) -> Entry:
        contract, params = type(job), job.model_dump_json(exclude_unset=True)
        queue = options.queue or contract.spec.queue
        limits = limits_of(contract, options)
        message, envelope = self._composer.enveloped(contract, job_id, params, limits, queue=queue)
        by = counted_by(contract)
        limited = counts_under(contract, job.model_dump(mode="json", include=by) if by else {})
        return Entry(
            id=job_id,
            queue=queue,
            params=params,
            message=message,
            envelope=envelope,
            contract=fingerprint(contract),
            **self._policy(contract, options),
            **(_wishes(options) | limited),
            **_uniqueness(job, lineage),
            **lineage,
        )

    def _workflow(
        self, prepared: Prepared, node: Node, job_id: str, lineage: dict[str, Any], done: Mapping[str, Record]
    ) -> Entry:
        planned, options = prepared.steps, prepared.options
        wishes = _wishes(options)
        return Entry(
            id=job_id,
            queue=planned[0].plan.contract.spec.queue,
            params=prepared.job.model_dump_json(exclude_unset=True),
            steps=self._steps(node, planned, options, job_id, done, due_at=wishes.get("due_at")),
            counts_steps=ends_in_parallel(node),
            **self._policy(type(prepared.job), options),
            **wishes,
            **_uniqueness(prepared.job, lineage),
            **lineage,
        )

    def expansion(
        self, node: Node, planned: Sequence[PlannedStep], step: Record, job: Record, reusing: Sequence[Record]
    ) -> tuple[Entry, ...]:
        """Return the entries of the steps that the step `step` adds to its job. Blocks: see `workflow_messages`.

        A step of the same name, kind and parameters that succeeded among those of `reusing` does not run again.
        """
        given = json.loads(job.options)
        options = RunOptions.model_validate({name: given[name] for name in RunOptions.model_fields if name in given})
        earlier = {one.step: one for one in reusing if one.state == State.SUCCEEDED}
        plans = (one.plan for one in planned)
        done = {plan.name: found for plan in plans if (found := earlier.get(plan.name)) and _is_of(found, plan)}
        after = [one if one.after else replace(one, after=(step.id,)) for one in planned]
        return self._steps(node, after, options, job.id, done, due_at=None)

    def _steps(
        self,
        node: Node,
        planned: Sequence[PlannedStep],
        options: RunOptions,
        job_id: str,
        done: Mapping[str, Record],
        *,
        due_at: int | None,
    ) -> tuple[Entry, ...]:
        to_do = [step for step in planned if step.plan.name not in done]
        limits = {step.id: limits_of(step.plan.contract, options) for step in to_do}
        left = without(node, done.keys())
        messages = workflow_messages(self._composer, left, to_do, limits, job_id=job_id) if left else {}
        for step in to_do:
            if isinstance(step.plan, Expansion):
                # What it waits for last may be a child: then Celery does not publish it.
                messages |= workflow_messages(self._composer, step.plan, [step], limits, job_id=job_id)
        followers = _followers(planned)
        waited_for = {step.id for step in to_do}

        def entry(step: PlannedStep) -> Entry:
            return Entry(
                id=step.id,
                queue=step.plan.contract.spec.queue,
                params=to_json(step.plan.params).decode(),
                message=messages.get(step.id),
                contract=fingerprint(step.plan.contract),
                due_at=None if waited_for.intersection(step.after) else due_at,
                job_id=job_id,
                step=step.plan.name,
                after=step.after,
                before=tuple(followers[step.id]),
                may_fail=step.plan.may_fail,
                reused=done.get(step.plan.name),
                **self._policy(step.plan.contract, options),
                **counts_under(step.plan.contract, step.plan.params),
            )

        return tuple(entry(step) for step in planned)

    def _policy(self, contract: AnyContract, options: RunOptions) -> dict[str, Any]:
        spec = contract.spec
        return {
            "kind": spec.kind,
            "priority": options.priority,
            "version": spec.version if spec.version > 1 else None,
            "max_crashes": spec.max_crashes,
            "max_retries": spec.retry.max_retries if options.max_retries is None else options.max_retries,
            **self._service_policy,
        }


def limits_of(contract: AnyContract, options: RunOptions) -> MessageOptions:
    """Return priority and time limits of one message: the limits of the kind, or shorter ones of the options."""
    limits = contract.spec.limits
    if options.time_limit_s is not None:
        limits = limits.within(options.time_limit_s)
    return MessageOptions(options.priority, limits.soft_s, limits.hard_s)


def _uniqueness(job: Contract[Any], lineage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of what at most one job may have, if the contract says so.

    A child always runs: its parent waits for it.
    """
    unique = job.spec.unique
    if unique is None or "parent" in lineage:
        return {}
    key = key_of(type(job), unique.by, job.model_dump(mode="json", include=set(unique.by)))
    return {"unique_key": key, "unique_replaces": unique.meanwhile == "replace"}


def _wishes(options: RunOptions) -> dict[str, Any]:
    """Return the fields of the entry of a job that come from its options; the entries of steps do not have them."""
    if not options.model_fields_set:
        return {}
    now_ms = time.time_ns() // 1_000_000
    wishes = {
        "expires_at": options.expires_in_s and now_ms + int(options.expires_in_s * 1000),
        "tags": tuple(dict.fromkeys(options.tags)),
        "options": options.model_dump_json(exclude_unset=True),
        "concurrency_key": options.concurrency_key,
        "concurrency_limit": options.concurrency_limit,
    }
    if isinstance(options, SubmissionOptions):
        if options.run_at is not None:
            wishes["due_at"] = int(options.run_at.timestamp() * 1000)
        elif options.delay_s:
            wishes["due_at"] = now_ms + int(options.delay_s * 1000)
    return wishes


def _done(planned: Sequence[PlannedStep], earlier: Sequence[Record]) -> dict[str, Record]:
    """Return the steps of an earlier job that do not run again, by name.

    A step runs again if one of its children did not succeed, since `expand()` gets the result of that; and so do those
    after it, which are fed by it.
    """
    found = {step.step: step for step in earlier if step.state == State.SUCCEEDED}
    done: dict[str, Record] = {}
    again: set[str] = set()
    for step in planned:
        name = step.plan.name
        if isinstance(step.plan, Expansion) or name not in found:
            continue
        if found[name].children_failed or again.intersection(step.after):
            again.add(step.id)
        else:
            done[name] = found[name]
    return done


def _is_of(step: Record, plan: StepPlan) -> bool:
    """Return whether a step of an earlier job is what is planned; no record has the items of a map."""
    same = step.kind == plan.contract.spec.kind and json.loads(step.params) == plan.params
    return same and not isinstance(plan, MapStep)


def _followers(planned: Sequence[PlannedStep]) -> dict[str, list[str]]:
    followers: dict[str, list[str]] = defaultdict(list)  # also of a step that the steps of an expansion follow
    for step in planned:
        for before in step.after:
            followers[before].append(step.id)
    return followers
