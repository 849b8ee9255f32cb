"""After the start, a collection of garbage looks only at what came afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.servers.services import Server

_REPORT = "print(json.dumps([gc.get_freeze_count(), len(gc.get_objects()), gc.get_threshold()[0]]), flush=True)"
_STARTS = {
    "gateway": f"""
import asyncio
from api.app import create_app

async def start():
    app = create_app()
    async with app.router.lifespan_context(app):
        {_REPORT}

asyncio.run(start())
""",
    "worker": f"""
from celery import signals
from worker.app import app
signals.celeryd_after_setup.send(sender="w1", instance=None, conf=app.conf)  # its children are forked next
{_REPORT}
""",
    "beat": f"""
from worker.app import app
from worker.beat import BeatScheduler
BeatScheduler(app)
{_REPORT}
""",
}


@pytest.mark.parametrize("role", _STARTS)
def test_what_a_role_has_loaded_is_set_aside(role: str, valkey: Server, tmp_path: Path) -> None:
    """Nearly all objects of the start are out of the collector's sight, in each of the three."""
    started = subprocess.run(
        [sys.executable, "-c", f"import gc, json\n{_STARTS[role]}"],
        env=os.environ
        | {
            "CELERY_BROKER_URL": valkey.redis_url,
            "CELERIAC_STORE_URL": str(tmp_path / "artifacts"),
            "WORKER_FAMILIES": "maintenance",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    aside, left, threshold = json.loads(started.stdout)
    assert aside > 100_000
    assert left < aside / 10
    assert threshold > 700


_BURST = """
import gc, json, os
from shared.collector import give_memory_back, set_aside_what_is_loaded

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

class Link:
    pass

set_aside_what_is_loaded()
before, links = resident(), []
gc.disable()
for n in range(200_000):
    link = Link()
    link.own, link.text = link, str(n) * 20
    links.append(link)
del link, links
most = resident()
give_memory_back()
print(json.dumps([before, most, resident()]))
"""


def test_memory_of_a_burst_goes_back_to_the_system() -> None:
    """Most of it, though what took it is in cycles that nobody has collected yet."""
    ended = subprocess.run([sys.executable, "-c", _BURST], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    before, most, after = json.loads(ended.stdout)
    assert most - before > 40_000_000
    assert after - before < (most - before) / 4
