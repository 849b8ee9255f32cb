"""What of a job its caller's key excludes: kinds, queues, connections, priorities, also those of a workflow's steps."""

from __future__ import annotations

from collections.abc import Iterator

from api.http.pointers import pointer
from api.http.problems import FieldError
from shared.access.callers import Restrictions
from shared.connections.settings import connections_in
from shared.workflows.nodes import Path
from shared.workflows.planning import Prepared


def beyond(restrictions: Restrictions, job: Prepared) -> Iterator[FieldError]:
    """Yield what a key with these restrictions may not submit of `job`, with pointers into its body."""
    if not restrictions.allows_priority(job.options.priority):
        most = f"Your key allows at most {restrictions.max_priority}."
        yield FieldError(pointer="/options/priority", message=most)
    if job.options.queue is not None and not restrictions.allows_queue(job.options.queue):
        yield FieldError(pointer="/options/queue", message="Your key does not allow this queue.")
    yield from _kinds(restrictions, job)
    yield from _queues(restrictions, job)
    if restrictions.connections is None:
        return
    for path, one in (((), job.job), *job.elements):
        for named in connections_in(one):
            if not restrictions.allows_connection(named.name, named.access):
                what = f"Your key does not allow to {named.access} the connection {named.name!r}."
                yield FieldError(pointer=pointer(("params", *path, *named.path)), message=what)


def _kinds(restrictions: Restrictions, job: Prepared) -> Iterator[FieldError]:
    named: tuple[tuple[Path, str], ...] = tuple((path, one.spec.kind) for path, one in job.elements)
    for path, kind in (((), job.job.spec.kind), *named):
        if not restrictions.allows_kind(kind):
            where = pointer(("params", *path)) if path else "/kind"
            yield FieldError(pointer=where, message=f"Your key does not allow jobs of the kind {kind!r}.")


def _queues(restrictions: Restrictions, job: Prepared) -> Iterator[FieldError]:
    """Yield an error for each queue of the kinds that is not allowed: a workflow's are those of its steps."""
    own = [job.job.spec.queue] if not job.steps and job.options.queue is None else []
    for queue in dict.fromkeys([*own, *(step.plan.contract.spec.queue for step in job.steps)]):
        if not restrictions.allows_queue(queue):
            yield FieldError(pointer="/kind", message=f"Your key does not allow the queue {queue!r}, which it uses.")
