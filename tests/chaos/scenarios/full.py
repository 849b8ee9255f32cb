"""The ledger is full, or a disk is; then there is room again."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.harness.account import settle
from tests.chaos.harness.clients import crowd
from tests.chaos.harness.rows import Row
from tests.chaos.harness.stage import Stage, scaled, stage
from tests.support.servers.disks import small_disk
from tests.support.servers.services import wait_for

FULL_S = 6.0
KNOWN_AFTER_S = 2.5  # gateways look at the limit once a second: none is lowered under a flood of submissions
ROOM_BYTES = 8 * 1024**2
DISK_BYTES = 64 * 1024**2
PADDING = "x" * 10_000  # of a job that fills the ledger
STANDS_AFTER_S = 8.0  # when nothing has ended for so long, nothing will


def ledger(folder: Path, scale: float = 1) -> Row:
    """Fill the ledger up to its `maxmemory`, 3 times; what was accepted is to be done before there is more room."""
    times = scaled(3, scale)
    with stage(folder, workers=2) as service, service.redis as client:
        for _ in range(times):
            client.config_set("maxmemory", client.info("memory")["used_memory"] + ROOM_BYTES)
            time.sleep(KNOWN_AFTER_S)
            with service.outage(507):
                _fill(service)
                with crowd(4, lambda: service.clients.submit_once(_large(service)), rest_s=0.05):
                    time.sleep(2 * FULL_S)
                _drain(service)
                client.config_set("maxmemory", 0)
            service.clients.submit_all([service.job() for _ in range(20)])
        return settle(service, f"maxmemory reached {times} x, 4 clients go on")


def _large(service: Stage) -> dict[str, Any]:
    return service.job(note=PADDING, lasts_s=0.2)


def _fill(service: Stage) -> None:
    def is_refused() -> bool:
        service.clients.submit_once(*(_large(service) for _ in range(20)))
        return service.clients.answers[-1].status >= 500

    wait_for(is_refused, "the ledger is full", bound_s=120)


def _drain(service: Stage) -> None:
    """Wait until all that was accepted has ended; note where it does not by itself."""
    left, moved_at = -1, time.monotonic()
    while now_left := len(service.clients.accepted.keys() - service.facts().settled_at.keys()):
        if now_left != left:
            left, moved_at = now_left, time.monotonic()
        elif time.monotonic() - moved_at > STANDS_AFTER_S:
            service.by_hand.append(f"{left} jobs stood in the full ledger until it was given more room")
            return
        time.sleep(0.3)


def ledger_disk(folder: Path, scale: float = 1) -> Row:
    """Fill the disk of Valkey's append-only file, 3 times, under 4 clients."""
    times = scaled(3, scale)
    with (
        small_disk(folder / "disk", DISK_BYTES) as disk,
        stage(folder, workers=2, valkey_folder=disk) as service,
    ):
        with crowd(4, lambda: service.clients.submit_once(service.job(lasts_s=0.5)), rest_s=0.3):
            _fill_disk(service, disk, times, 503, 507)
        return settle(service, f"disk of the broker full {times} x for {FULL_S:g} s, 4 clients")


def store_disk(folder: Path, scale: float = 1) -> Row:
    """Fill the disk of the artifacts, 3 times, while jobs publish files."""
    times = scaled(3, scale)
    with (
        small_disk(folder / "disk", DISK_BYTES) as disk,
        stage(folder, workers=2, env={"CELERIAC_STORE_URL": str(disk)}) as service,
    ):

        def submit() -> None:
            service.clients.submit_once(service.job(lasts_s=0.5, published_bytes=50_000))

        with crowd(4, submit, rest_s=0.3):
            _fill_disk(service, disk, times)
        return settle(service, f"disk of the artifacts full {times} x for {FULL_S:g} s, 4 clients")


def _fill_disk(service: Stage, disk: Path, times: int, *statuses: int) -> None:
    """Leave no room on the disk, and give it back, several times; answers may have these statuses because of it."""
    for _ in range(times):
        time.sleep(3)
        with service.outage(*statuses):
            with (disk / "filler").open("wb") as filler, suppress(OSError):
                while True:
                    filler.write(bytes(1024**2))
                    filler.flush()
            time.sleep(FULL_S)
            (disk / "filler").unlink()
        time.sleep(3)
