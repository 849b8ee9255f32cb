"""Checks of jobs beyond the schema: connections, options that do not fit the kind, invalid workflows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from api.access.restricting import beyond
from api.http.pointers import pointer
from api.http.problems import FieldError, Problem
from shared.access.callers import UNRESTRICTED, Restrictions
from shared.connections.callbacks import CallbackSettings, problem_with_callback
from shared.connections.settings import Connections, check_connections
from shared.contract.definition import Contract, known_queues
from shared.contract.options import RunOptions, SubmissionOptions
from shared.contract.spelling import did_you_mean
from shared.workflows.assembly import CanvasContract
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import MOST_MESSAGE_BYTES, MOST_NESTED, MapStep, Path, message_bytes, nested_chords
from shared.workflows.planning import Prepared

_MOST_STEPS = 5_000  # of all workflows of one request


@dataclass
class Checks:
    """Checks the jobs of one request in order and collects their errors."""

    connections: Connections
    callbacks: CallbackSettings
    restrictions: Restrictions = UNRESTRICTED  # of the caller
    _forbidden: list[FieldError] = field(default_factory=list)  # by the restrictions
    _unknown: list[FieldError] = field(default_factory=list)  # connections
    _wrong: list[FieldError] = field(default_factory=list)
    _too_large: list[FieldError] = field(default_factory=list)
    _steps: int = 0  # of all workflows: they are written in one call of the ledger
    _bytes: int = 0  # of their messages

    def passes(self, job: Prepared, base: str) -> bool:
        """Return whether this job and all before it can be accepted. `base` is the pointer to it in the body."""
        if job.options.model_fields_set or job.problems or job.node is not None:  # else there is nothing to see
            wrong = [
                *_option_problems(job.job, job.options),
                *_item_limit_problems(job),
                *_callback_problems(job.options, self.callbacks),
                *(_at_params(path, message) for path, message in job.problems),
            ]
            self._too_large += [_below(base, error) for error in self._size_problems(job)]
            self._wrong += [_below(base, error) for error in wrong]
        if self.restrictions is not UNRESTRICTED:
            self._forbidden += [_below(base, error) for error in beyond(self.restrictions, job)]
        for path, one in (((), job.job), *job.elements):
            for problem in check_connections(one, self.connections):
                error = _at_params((*path, *problem.path), problem.message)
                self._unknown.append(_below(base, error))
        return not (self._forbidden or self._wrong or self._unknown or self._too_large)

    def refuse(self) -> None:
        """Raise `Problem` with all invalid fields, if there are any: 403 for those that the caller's key excludes."""
        if forbidden := self._forbidden:  # before all else: what is not for this caller is not told about, either
            raise Problem(403, "restricted_key", f"{forbidden[0].pointer}: {forbidden[0].message}", errors=forbidden)
        errors = [*self._unknown, *self._wrong, *self._too_large]
        if errors:
            code = "unknown_connection" if self._unknown else "invalid_request" if self._wrong else "workflow_too_large"
            raise Problem(422, code, f"{errors[0].pointer}: {errors[0].message}", errors=errors)

    def _size_problems(self, job: Prepared) -> Iterator[FieldError]:
        if job.node is None or self._too_large:
            return
        self._steps += len(job.steps)
        self._bytes += message_bytes(job.node)
        if self._steps > _MOST_STEPS:
            most = f"The workflows of one request may have at most {_MOST_STEPS} steps in total. Split the request."
            yield FieldError(pointer="/params", message=most)
        elif nested_chords(job.node) > MOST_NESTED:
            what = (
                f"It has more than {MOST_NESTED} groups of parallel steps in a row; each contains all later ones. "
                "Put single steps between the groups, or split it into several jobs."
            )
            yield FieldError(pointer="/params", message=what)
        elif self._bytes > MOST_MESSAGE_BYTES:
            what = (
                f"With it, the messages of this request have more than {MOST_MESSAGE_BYTES >> 20} MiB: the message of "
                "each parallel step contains all later steps. Use fewer parallel or later steps, or smaller parameters."
            )
            yield FieldError(pointer="/params", message=what)


def _below(base: str, error: FieldError) -> FieldError:
    return FieldError(pointer=base + error.pointer, message=error.message)


def _at_params(path: Path, message: str) -> FieldError:
    return FieldError(pointer=pointer(("params", *path)), message=message)


def _option_problems(job: Contract[Any], options: RunOptions) -> Iterator[FieldError]:
    spec = job.spec
    if not options.model_fields_set:
        return
    if options.time_limit_s is not None and options.time_limit_s > spec.limits.hard_s:
        most = f"Use at most {spec.limits.hard_s:g} s, the limit of {spec.kind}."
        yield FieldError(pointer="/options/time_limit_s", message=most)
    if options.expires_in_s is not None and options.expires_in_s <= _starts_in_s(options):
        yield FieldError(
            pointer="/options/expires_in_s", message="The job would expire before it starts; use a later expiry."
        )
    if options.concurrency_key is not None and isinstance(job, WorkflowContract):
        own = "Omit it: a workflow has no concurrency key. If its steps need one, submit them as jobs."
        yield FieldError(pointer="/options/concurrency_key", message=own)
    if options.concurrency_key is not None and spec.concurrency is not None:
        own = f"Omit it: the kind {spec.kind} sets how many of its jobs run at once."
        yield FieldError(pointer="/options/concurrency_key", message=own)
    if options.queue is None:
        return
    if isinstance(job, WorkflowContract):
        own = "Omit it: the steps of a workflow use the queues of their kinds."
        yield FieldError(pointer="/options/queue", message=own)
    elif options.queue not in known_queues():
        hint = did_you_mean(options.queue, known_queues())
        yield FieldError(pointer="/options/queue", message=f"The queue is unknown. {hint}")


def _item_limit_problems(job: Prepared) -> Iterator[FieldError]:
    """Yield a contradiction of one request: an item that may take longer than all of a step."""
    whole_s = job.options.time_limit_s
    if whole_s is None or not isinstance(job.job, CanvasContract):
        return
    maps = (step.plan for step in job.steps if isinstance(step.plan, MapStep))
    longest_s = max((plan.item_time_limit_s or 0.0 for plan in maps), default=0.0)
    if longest_s > whole_s:
        what = f"It bounds all items of a step together: use at least {longest_s:g} s, or a lower item_time_limit_s."
        yield FieldError(pointer="/options/time_limit_s", message=what)


def _callback_problems(options: RunOptions, settings: CallbackSettings) -> Iterator[FieldError]:
    url = options.callback_url
    if url is not None and (problem := problem_with_callback(url, settings)) is not None:
        yield FieldError(pointer="/options/callback_url", message=problem)


def _starts_in_s(options: RunOptions) -> float:
    if not isinstance(options, SubmissionOptions):
        return 0.0
    if options.run_at is not None:
        return options.run_at.timestamp() - time.time()
    return options.delay_s or 0.0
