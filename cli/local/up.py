"""`celeriac up`: run a complete service on this machine until the command ends."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import redis

from celeriac import start
from celeriac.extras import how_to_install, missing
from celeriac.ports import HOST, free_port
from cli.local import spares
from cli.local.folder import claimed_folder, connections_of
from cli.local.ports import CannotStart, refuse_taken_port
from cli.local.processes import Child, Died, Ensemble, NotReady, Program, StopRequested, StopSignals
from cli.local.secrets import for_beat, for_gateway, for_worker
from cli.local.sources import Sources
from cli.local.valkey import answers, valkey_program
from cli.local.workers import WorkerPlan, families_without_packages, plan_workers
from shared.broker.safety import refuse_unsafe, safe_url
from shared.broker.settings import BrokerSettings
from shared.contract.families import FAMILIES
from shared.contract.installed import KINDS, TASKS, installed, named_in
from shared.errors import DefinitionError
from shared.ledger.client import Ledger
from shared.ledger.operations import workers_of
from shared.ledger.server import bounded
from shared.texts import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BROKER_VARIABLES = ("CELERY_BROKER_URL", "CELERIAC_BROKER_URL")
_GATEWAY, _BEAT, _WORKERS, _BROKER = range(4)  # the order in which they are stopped
_READY_WITHIN_S = 120.0
_SLOW_AFTER_S = 8.0
_http = build_opener(ProxyHandler({}))  # it is on this machine
_STREAMS_END_S = 3  # how long a stopping gateway keeps event streams open


@dataclass(frozen=True, slots=True)
class Service:
    """Folders and URLs of a running service."""

    url: str
    broker_url: str
    folder: Path

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.folder / "logs"


def run(
    *,
    port: int,
    folder: Path,
    valkey_port: int | None,
    say: Callable[[str, str], None],
    quiet: bool = False,
    reload: bool = False,
) -> int:
    """Run the service until a signal arrives or a program ends, stop it in order, and return the exit code.

    With `reload`, what uses the code of somebody's kinds is started again when that changes.
    `say(name, line)` takes the messages of this function as `up` and, unless `quiet`, the programs' output.
    Raises `CannotStart` and `DefinitionError` before any program starts.
    """

    def tell(name: str, line: str) -> None:
        if name == "up" or not quiet:
            say(name, line)

    start.put_ours_first()  # this process plans the workers from the modules that the programs will find
    start.put_cwd_on_path()
    refuse_taken_port(port, "--port")
    external = next((url for name in BROKER_VARIABLES if (url := os.environ.get(name))), None)
    embedded_url = "" if external else _embedded_url(valkey_port)
    with claimed_folder(folder, port, broker_url=embedded_url) as lock, StopSignals() as signals:
        _refuse_missing_packages(*(("api", "worker") if external else ("up",)))
        environment = _environment(folder, port, external or embedded_url)
        settings = _broker_settings(environment)
        workers = plan_workers(environment)
        if not workers:
            raise CannotStart(
                "No family's packages are installed, so no job could run. Install those whose jobs you need: "
                f"{how_to_install(*families_without_packages() or FAMILIES)}"
            )
        sources = _sources(environment) if reload else None
        ensemble = Ensemble(folder / "logs", signals, tell)
        try:
            service = Service(f"http://{HOST}:{port}", settings.broker_url, folder)
            if not external:
                _start_valkey(ensemble, settings, folder, environment, lock)
            _refuse_unsafe_broker(settings)
            _start_the_rest(ensemble, service, settings, environment, workers, reload=reload)
            _announce(service, external=external is not None, say=tell)
            ensemble.watch(*((sources.changed, sources.only_tasks) if sources else ()))
        except StopRequested as stop:
            tell("up", f"{stop.received.name} received")
            return 0
        except Died as death:
            _tell_death(death.child, tell)
            return 1
        except NotReady as late:
            tell("up", f"{late}; see {folder / 'logs'}")
            return 1
        finally:
            ensemble.stop()
    raise AssertionError  # unreachable: watching ends with an exception


def _sources(environment: Mapping[str, str]) -> Sources:
    sources = Sources(
        [*named_in("CELERIAC_CONTRACTS", environment), *installed(KINDS).values()],
        [*named_in("CELERIAC_TASKS", environment), *installed(TASKS).values()],
    )
    if not sources.roots:
        raise CannotStart(
            "--reload looks at the packages in CELERIAC_CONTRACTS, CELERIAC_TASKS and the entry points of "
            f"{KINDS}, and there is none but the service's own. Set them, or leave --reload out."
        )
    return sources


def _refuse_missing_packages(*extras: str) -> None:
    if absent := missing(*extras):
        raise CannotStart(f"`celeriac up` needs {', '.join(absent)}. Run: {how_to_install(*extras)}")


def _embedded_url(valkey_port: int | None) -> str:
    if valkey_port is not None:
        refuse_taken_port(valkey_port, "--valkey-port")
    return f"redis://{HOST}:{valkey_port or free_port()}/0"


def _environment(folder: Path, port: int, broker_url: str) -> dict[str, str]:
    """Return the environment of the programs: that of this process, plus folders and URLs."""
    connections = os.environ.get("CELERIAC_CONNECTIONS_FILE") or str(connections_of(folder))
    defaults = {
        "CELERIAC_CONNECTIONS_FILE": connections,
        "CELERIAC_STORE_URL": str((folder / "artifacts").resolve()),
    }
    ours = {
        "CELERY_BROKER_URL": broker_url,
        "CELERIAC_PORT": str(port),
        "PYTHONUNBUFFERED": "1",
    }
    return {**defaults, **os.environ, **ours}


def _broker_settings(environment: Mapping[str, str]) -> BrokerSettings:
    """Return the settings of the programs. Raises `CannotStart` if they are invalid."""
    try:
        return BrokerSettings(
            broker_url=environment["CELERY_BROKER_URL"],
            ledger_url=environment.get("CELERIAC_LEDGER_URL", ""),
            result_backend=environment.get("CELERY_RESULT_BACKEND", ""),
        )
    except ValueError as wrong:
        raise CannotStart(f"The broker's settings are invalid: {redact(str(wrong))}") from None


def _start_valkey(
    ensemble: Ensemble, settings: BrokerSettings, folder: Path, environment: Mapping[str, str], lock: int
) -> None:
    port = urlsplit(settings.broker_url).port or 0
    ensemble.start(valkey_program(folder / "valkey", port, for_beat(environment), stop_stage=_BROKER, lock=lock))
    ensemble.wait_until(
        lambda: answers(settings.broker_url), "valkey", within_s=_READY_WITHIN_S, slow_after_s=_SLOW_AFTER_S
    )


def _refuse_unsafe_broker(settings: BrokerSettings) -> None:
    """Raise `CannotStart` if the external Redis does not respond or could lose accepted jobs."""
    for url in {settings.ledger_url} | ({settings.broker_url} if settings.uses_redis else set()):
        try:
            with redis.Redis.from_url(url, **bounded()) as client:
                refuse_unsafe(client, allow_volatile=settings.allow_volatile_broker)
        except redis.RedisError as silent:
            raise CannotStart(
                f"The broker {safe_url(url)} does not respond: {redact(str(silent))}. Start it, fix "
                "CELERY_BROKER_URL, or unset that to use the embedded one."
            ) from None
        except DefinitionError as unsafe:
            raise CannotStart(f"{safe_url(url)}: {unsafe}") from None


def _start_the_rest(
    ensemble: Ensemble,
    service: Service,
    settings: BrokerSettings,
    environment: Mapping[str, str],
    workers: list[WorkerPlan],
    *,
    reload: bool,
) -> None:
    port = urlsplit(service.url).port
    uvicorn = f"uvicorn --factory api.app:create_app --host {HOST} --port {port} --no-access-log"
    serve = [*uvicorn.split(), "--timeout-graceful-shutdown", str(_STREAMS_END_S)]
    celery = ["celery", "--quiet", "-A", "worker.app"]
    grace_s = settings.soft_shutdown_s + 15  # see worker.upkeep.custodian: requeue, then kill after 10 s
    gateway = Program(
        "gateway", start.command(*serve), for_gateway(environment), _GATEWAY, grace_s=10, is_only_one=True
    )
    ensemble.start(_reloading(gateway, serve) if reload else gateway)
    awaited: dict[int, str] = {}  # workers by their process ids
    for worker in workers:
        node = f"{worker.name.removeprefix('worker-')}@%h"
        quick = ["--without-mingle", "--without-gossip"]  # no feature here uses the messages between workers
        run = [*celery, "worker", "--hostname", node, "--loglevel", "INFO", *worker.options, *quick]
        needed = for_worker(worker.environment)
        program = Program(worker.name, start.command(*run), needed, _WORKERS, grace_s, runs_tasks=True)
        child = ensemble.start(_reloading(program, run) if reload and worker.runs_added else program)
        awaited[child.process.pid] = worker.name
    beat = start.command(*celery, "beat", "--loglevel", "INFO")
    plain = {name: value for name, value in for_beat(environment).items() if name != "CELERIAC_TASKS"}
    ensemble.start(Program("beat", beat, plain, _BEAT, grace_s=10, reloads=reload, can_wait=True))
    limits = {"within_s": _READY_WITHIN_S, "slow_after_s": _SLOW_AFTER_S}
    ensemble.wait_until(lambda: _is_ready(service.url), "gateway", **limits)

    def all_consume() -> bool:
        for pid in _consuming(settings.ledger_url):
            awaited.pop(pid, None)
        return not awaited

    ensemble.wait_until(all_consume, ", ".join(sorted(awaited.values())), **limits)


def _reloading(program: Program, words: Sequence[str]) -> Program:
    return replace(program, reloads=True, spare=spares.command(*words))


def _is_ready(url: str) -> bool:
    with suppress(OSError, HTTPException), _http.open(f"{url}/readyz", timeout=2.0):
        return True
    return False


def _consuming(ledger_url: str) -> set[int]:
    """Return the process ids of this machine's workers that the ledger knows: not every broker can ask them."""
    with suppress(OSError, redis.RedisError), redis.Redis.from_url(ledger_url, **bounded()) as client:
        live = [worker for worker in workers_of(Ledger(client)) if not worker.is_lost]
        return {worker.about.pid for worker in live if worker.about.host == socket.gethostname()}
    return set()


def _announce(service: Service, *, external: bool, say: Callable[[str, str], None]) -> None:
    broker = f"{safe_url(service.broker_url)} ({'yours' if external else 'embedded, append-only file on'})"
    for name, where in {
        "gateway": service.url,
        "docs": f"{service.url}/docs",
        "metrics": f"{service.url}/metrics",
        "broker": broker,
        "data": str(service.folder.resolve()),
        "connections": os.environ.get("CELERIAC_CONNECTIONS_FILE", str(service.folder.resolve() / "connections.toml")),
        "logs": str(service.logs.resolve()),
    }.items():
        say("up", f"{name:<12} {where}")
    if absent := families_without_packages():
        say("up", f"no workers for {', '.join(absent)}: their packages are not installed ({how_to_install(*absent)})")
    say("up", "ready; Ctrl-C stops everything")


def _tell_death(child: Child, say: Callable[[str, str], None]) -> None:
    say("up", f"{child.program.name} ended unexpectedly ({child.how_it_ended}); stopping everything. Its last lines:")
    for line in child.last_lines:
        say("up", f"  {line}")
    say("up", f"Complete log: {child.log.resolve()}")
