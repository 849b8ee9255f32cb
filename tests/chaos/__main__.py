"""`make chaos`: hurt the service in every way that its promises speak of, and print what came of it.

python -m tests.chaos [SCENARIO...] [--scale 0.1]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.chaos.harness.rows import table
from tests.chaos.scenarios import full, poison, servers, silence, soak, versions, workers, workflows

SCENARIOS = {
    "workers": workers.run,
    "servers": servers.run,
    "silence": silence.run,
    "ledger": full.ledger,
    "ledger-disk": full.ledger_disk,
    "store-disk": full.store_disk,
    "workflows": workflows.run,
    "gateway-first": versions.gateway_first,
    "workers-first": versions.workers_first,
    "poison": poison.run,
    "soak": soak.run,
}


def main() -> int:
    """Run the scenarios one after another; return 1 where a goal was missed."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Hurt real processes; see what came of it.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of: {', '.join(SCENARIOS)}; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the jobs and injuries; default: all")
    asked = parser.parse_args()
    if unknown := set(asked.scenarios) - SCENARIOS.keys():
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    folder, rows = Path(tempfile.mkdtemp(prefix="celeriac-chaos-")), []
    print(f"logs and journals: {folder}")
    for name in asked.scenarios or SCENARIOS:
        began_at = time.monotonic()
        rows.append(SCENARIOS[name](folder / name, asked.scale))
        missed = ", ".join(rows[-1].misses) or "none"
        print(f"{name}: {time.monotonic() - began_at:.0f} s, misses: {missed}", flush=True)
    print(f"\n{table(rows)}")
    return int(any(row.misses for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
