"""The Celery application of a worker: `celery -A worker.app worker`.

`WORKER_FAMILIES` (comma-separated) names the families whose tasks it loads and whose queues it consumes (a family may
also run what lies in its queue of another: see `shared.contract.families`);
that of an installed package is the name of its entry point in `celeriac.tasks`. `CELERIAC_TASKS` names further
modules with tasks.
"""

from __future__ import annotations

import os

# Before any numeric library is imported: a fork would copy their thread pools in an unusable state.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle OpenMP threads must not busy-wait
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")  # Arrow's allocator starts one at import

import importlib  # noqa: E402
import warnings  # noqa: E402

from celery import Celery  # noqa: E402
from celery.exceptions import SecurityWarning  # noqa: E402

from celeriac import extras  # noqa: E402
from shared.broker.celery import configure, make_celery  # noqa: E402
from shared.broker.settings import broker_settings  # noqa: E402
from shared.contract.catalogue import catalogue, import_tree  # noqa: E402
from shared.contract.families import FAMILIES, with_those_also_run  # noqa: E402
from shared.contract.installed import TASKS, installed, named_in  # noqa: E402
from shared.environment import refusal_ends_the_program  # noqa: E402
from shared.errors import DefinitionError  # noqa: E402
from shared.workflows.definition import WorkflowContract  # noqa: E402
from worker.runtime.expansion import expansions, refusals  # noqa: E402
from worker.runtime.task import Definition, definitions, register  # noqa: E402
from worker.settings import worker_settings  # noqa: E402
from worker.upkeep import lifecycle  # noqa: E402

# Seven lines before anything else; a worker of root says it in one, see `lifecycle`.
warnings.filterwarnings("ignore", "You're running the worker with superuser privileges", SecurityWarning)


def load_tasks(families: list[str], modules: list[str]) -> list[Definition]:
    """Import the tasks of `families` and of `modules`, and return them with those of their workflows that have one.

    Raises `DefinitionError` if a family has no tasks or lacks packages here, or a kind of a loaded family has no task.
    """
    for family in families:
        if family in installed(TASKS):
            list(import_tree(installed(TASKS)[family], named_by=f"the entry point {family!r} of {TASKS}"))
            continue
        if absent := extras.missing(family):
            raise DefinitionError(
                f"WORKER_FAMILIES names {family!r}, which needs {', '.join(absent)}. "
                f"Run: {extras.how_to_install(family)}"
            )
        try:
            importlib.import_module(f"worker.{family}.tasks")
        except ModuleNotFoundError as missing:
            if missing.name not in {f"worker.{family}", f"worker.{family}.tasks"}:
                raise
            raise DefinitionError(
                f"WORKER_FAMILIES names {family!r}, whose tasks are not installed here. "
                "Use the image of that family, or correct the name."
            ) from missing
    for module in modules:
        list(import_tree(module, named_by="CELERIAC_TASKS"))
    declared = definitions()
    for kind, contract in catalogue().families(families).items():
        if kind not in declared and not issubclass(contract, WorkflowContract):
            raise DefinitionError(f"{kind} has no task: write a function with @runs({contract.__name__}).")
    loaded = {*families, *(definition.contract.spec.family for definition in declared.values())}
    return [*declared.values(), *expansions(loaded)]


def make_app() -> Celery:
    """Return the application with the tasks of this process."""
    worker_settings()  # a wrong one is an error before the families' libraries are loaded
    families = named_in("WORKER_FAMILIES")
    app = make_celery(broker_settings())
    configure(app, {"worker_consumer": "worker.upkeep.intake:Intake", "worker_pool": "worker.pool:TaskPool"})
    loaded = with_those_also_run(families)
    tasks = load_tasks(loaded, named_in("CELERIAC_TASKS"))
    register(app, [*tasks, *refusals()])
    guests = set(loaded) - set(families)
    specs = [task.contract.spec for task in tasks]
    own = {spec.queue for spec in specs if spec.family not in guests}
    if queues := own | (FAMILIES.keys() & families):
        app.amqp.queues.select(sorted(queues))
    if loaded == ["callbacks"]:  # these wait for the network, so more than one processor would suggest
        configure(app, {"worker_concurrency": 2 * worker_settings().callbacks_per_host})
    lifecycle.attach(app)
    return app


with refusal_ends_the_program():
    app = make_app()
