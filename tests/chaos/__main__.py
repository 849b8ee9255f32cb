"""`make chaos`: hurt the service in every way that its promises speak of, and print what came of it.

python -m tests.chaos [SCENARIO...] [--scale 0.1]
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest

from tests.chaos.harness.rows import Row, table
from tests.chaos.scenarios import full, poison, prefetch, servers, silence, soak, versions, workers, workflows

SCENARIOS = {
    "workers": workers.run,
    "frozen-mains": workers.frozen_mains,
    "cut-off": workers.cut_off,
    "servers": servers.run,
    "silence": silence.run,
    "ledger": full.ledger,
    "ledger-disk": full.ledger_disk,
    "store-disk": full.store_disk,
    "workflows": workflows.run,
    "gateway-first": versions.gateway_first,
    "workers-first": versions.workers_first,
    "poison": poison.run,
    "prefetch": prefetch.on_redis,
    "prefetch-rabbitmq": prefetch.on_rabbitmq,
    "soak": soak.run,
}


def main() -> int:
    """Run the scenarios one after another; return 1 where a goal was missed or a scenario could not be played."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Hurt real processes; see what came of it.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the jobs and injuries; default: all")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - SCENARIOS.keys():
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started ends, too
    folder, rows, all_played = Path(tempfile.mkdtemp(prefix="celeriac-chaos-")), dict[str, Row](), True
    for name in asked.scenarios or SCENARIOS:
        began_at = time.monotonic()
        try:
            rows[name] = SCENARIOS[name](folder / name, asked.scale)
            said = f"misses: {', '.join(rows[name].misses) or 'none'}"
        except pytest.skip.Exception as skipped:
            said = f"left out: {skipped}"
        except Exception as failure:  # noqa: BLE001 - the others are still played
            traceback.print_exc()
            said, all_played = f"not played to its end: {failure}", False
        print(f"{name}: {time.monotonic() - began_at:.0f} s, {said}", flush=True)
    print(f"\n{table(rows)}")
    if all_played and not any(row.misses for row in rows.values()):
        shutil.rmtree(folder)
        return 0
    print(f"\nlogs and journals: {folder}")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
