"""Plan the worker processes of a service on one machine."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from celeriac.extras import missing
from shared.contract.catalogue import catalogue, is_in
from shared.contract.installed import TASKS, installed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OWN_CONTRACTS = "shared.jobs"


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """One worker process."""

    name: str
    environment: Mapping[str, str]
    runs_added: bool = False  # kinds that are not the service's own
    options: Sequence[str] = ()  # of Celery's command


def plan_workers(environment: Mapping[str, str]) -> list[WorkerPlan]:
    """Return one worker per family whose tasks and their packages are installed, by the catalogue of this process.

    The kinds that `CELERIAC_CONTRACTS` adds run in one worker, together with the families whose queues they share,
    because a worker that consumes a queue must have the tasks of all its kinds. A queue whose contracts say how many
    processes it has gets a worker of its own.
    """
    kinds = list(catalogue().values())
    added = [kind for kind in kinds if not is_in(kind, _OWN_CONTRACTS)]
    queues = {kind.spec.queue for kind in added}
    families = sorted(
        {kind.spec.family for kind in kinds if _has_tasks(kind.spec.family) and not missing(kind.spec.family)}
    )
    joined = [
        family
        for family in families
        if any(kind.spec.family == family and kind.spec.queue in queues for kind in kinds)
        or any(kind.spec.family == family for kind in added)
    ]
    plain = {name: value for name, value in environment.items() if name != "CELERIAC_TASKS"}
    plans = [
        WorkerPlan(f"worker-{family}", {**plain, "WORKER_FAMILIES": family})
        for family in families
        if family not in joined
    ]
    if added:
        theirs = {**environment, "WORKER_FAMILIES": ",".join(joined)}
        apart = sorted(queues & catalogue().processes().keys())
        plans += [
            WorkerPlan(f"worker-queue-{queue}", theirs, runs_added=True, options=("-Q", queue)) for queue in apart
        ]
        shared = {kind.spec.queue for kind in kinds if kind in added or kind.spec.family in joined} - set(apart)
        if shared:
            names = joined or sorted({kind.spec.family for kind in added})
            others = ("-X", ",".join(apart)) if apart else ()
            plans.append(WorkerPlan(f"worker-{'-'.join(names)}", theirs, runs_added=True, options=others))
    return plans


def families_without_packages() -> list[str]:
    """Return the families of the catalogue whose tasks are here without the packages that they import."""
    families = {kind.spec.family for kind in catalogue().values()}
    return sorted(family for family in families if _has_tasks(family) and missing(family))


def _has_tasks(family: str) -> bool:
    if family in installed(TASKS):
        return True
    try:
        return find_spec(f"worker.{family}.tasks") is not None
    except ModuleNotFoundError:
        return False
