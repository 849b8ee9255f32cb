"""Workers hold no more messages and jobs than they have processes, over many retries and delays; nothing is hurt."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.chaos.harness.account import settle
from tests.chaos.harness.holding import held, unacked_on
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import CONCURRENCY, Stage, scaled, stage
from tests.support.servers.rabbitmq import rabbitmq_server, require_rabbitmq, unacknowledged

WORKERS = 3
JOBS = 10_000


def on_redis(folder: Path, scale: float = 1) -> Row:
    """10,000 jobs, a third with retries, a third delayed."""
    with stage(folder, workers=WORKERS) as service, service.redis as client:
        return _watched(service, scale, f"redis://127.0.0.1:{service.valkey_port}/0", unacked_on(client))


def on_rabbitmq(folder: Path, scale: float = 1) -> Row:
    """Run the same with RabbitMQ as the broker."""
    require_rabbitmq()
    folder.mkdir(parents=True)
    with (
        rabbitmq_server(folder / "rabbitmq") as url,
        stage(folder / "stage", workers=WORKERS, broker_url=url) as service,
    ):
        return _watched(service, scale, url, lambda: unacknowledged(folder / "rabbitmq"))


def _watched(service: Stage, scale: float, broker_url: str, given_out: Callable[[], int]) -> Row:
    chance, number = random.Random(8), scaled(JOBS, scale)  # noqa: S311 - the same jobs each time
    ledger_url = f"redis://127.0.0.1:{service.valkey_port}/0"
    with held(broker_url, ledger_url, given_out, workers=WORKERS) as holding:
        jobs = [service.job(fails_first=0 if at % 3 else chance.randint(1, 2)) for at in range(number)]
        for job in jobs[1::3]:
            job["options"] = {"delay_s": chance.uniform(0.1, 10)}
        service.clients.submit_all(jobs, batch=500)
        return settle(
            service,
            f"nothing; a third of the jobs with retries, a third delayed, {broker_url.partition(':')[0]}",
            bound_s=1_800,
            also_false=lambda _: holding.beyond(workers=WORKERS, concurrency=CONCURRENCY),
        )
