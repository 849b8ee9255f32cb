"""Health checks of containers: `python -m worker.upkeep.alive worker` and `python -m worker.upkeep.alive beat`.

A worker touches a file from the timer of its consumer (`worker.upkeep.pulse`), so the file becomes stale when the main
loop hangs or the broker is down. The check sends no message and loads no library. Beat renews a lock in the Redis of
the ledger with every tick, so a beat that stopped ticking loses it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

FILE_VARIABLE = "CELERIAC_ALIVE_FILE"
PERIOD_S = 5.0
STALE_S = 4 * PERIOD_S


def worker_trouble(file: str, *, now: float) -> str | None:
    """Return the problem of the worker that touches `file`, or `None`. `now`: seconds since the epoch."""
    try:
        age_s = now - Path(file).stat().st_mtime
    except FileNotFoundError:
        return f"no worker has touched {file or FILE_VARIABLE} yet"
    return f"the worker's main loop has hung for {age_s:.0f} s" if age_s > STALE_S else None


def beat_trouble() -> str | None:
    """Return the problem of beat, or `None`, from its lock in the Redis of the ledger."""
    import redis  # noqa: PLC0415 - the check of a worker does not need it

    from shared.broker.settings import broker_settings  # noqa: PLC0415 - likewise
    from shared.ledger.keys import key  # noqa: PLC0415 - likewise
    from shared.ledger.server import bounded  # noqa: PLC0415 - likewise

    settings = broker_settings()
    with redis.Redis.from_url(settings.ledger_url, **bounded()) as client:
        return None if client.exists(key("redbeat_lock")) else "beat does not hold its lock, so it has stopped ticking"


def main(role: str) -> str | None:
    """Return the problem of this container's `role` (`worker` or `beat`), or `None`."""
    if role == "beat":
        return beat_trouble()
    return worker_trouble(os.environ.get(FILE_VARIABLE, ""), now=time.time())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
