"""Messages that nobody can read lie on the list between those of jobs."""

from __future__ import annotations

import json
import time
from pathlib import Path

from shared.broker.messages import Composer, MessageOptions
from shared.broker.settings import BrokerSettings
from shared.ledger.ids import uuid7
from tests.chaos.harness.account import settle
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import Stage, scaled, stage
from tests.chaos.kinds.contracts import LeaveTrace
from tests.support.mutations import POISON, Message

ETL_LIST = "etl\x06\x165"  # kombu's list of the default priority
GONE_WITHIN_S = 20.0


def run(folder: Path, scale: float = 1) -> Row:
    """4 messages of each kind between 400 jobs."""
    rounds = scaled(4, scale)
    with stage(folder, workers=2) as service, service.redis as client:
        composer = Composer(BrokerSettings(broker_url=f"redis://127.0.0.1:{service.valkey_port}/0"))
        for _ in range(rounds):
            for make in POISON.values():
                service.clients.submit_all([service.job(lasts_s=0.1) for _ in range(5)])
                client.lpush(ETL_LIST, make(_message(composer, service)))
            time.sleep(2)
        give_up_at = time.monotonic() + GONE_WITHIN_S
        while (left := client.llen(ETL_LIST)) and time.monotonic() < give_up_at:
            time.sleep(0.2)
        if left:
            service.by_hand.append(f"{left} messages stay on the list")
        return settle(service, f"{rounds} messages of each of {len(POISON)} kinds that cannot be read")


def _message(composer: Composer, service: Stage) -> Message:
    """Return a right message of a job that the ledger does not know."""
    params = json.dumps(service.job(label="poison")["params"])
    text = composer.message(LeaveTrace, uuid7(), params, MessageOptions(5, 60, 90), queue=LeaveTrace.spec.queue)
    message: Message = json.loads(text)
    return message
