"""One gateway beside two, with the load spread over them: `python -m bench.scaling`.

They run where the machine puts them. On two cores, which Valkey and the load need as well, the rate by the clock cannot
double; the CPU time that a job takes must stay what it is.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import servers
from bench.load import Request, load
from bench.report import Figures, Goal, reached, table

CONNECTIONS = 32
DURATION_S = 2.0
ROUNDS = int(os.environ.get("ROUNDS", "5"))
GOALS = (
    Goal("2 gateways", "per_cpu_s", least=0.9, other=["1 gateway"]),
    Goal("2 gateways", "per_s", least=1.0, other=["1 gateway"]),
)


def measured(request: Request) -> dict[str, list[Figures]]:
    """Return the figures of each round: of all requests, and by the CPU time of all gateways together."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        port = servers.free_port()
        database = stack.enter_context(servers.valkey(Path(folder), port))
        ports = [servers.free_port(), servers.free_port()]
        pids = [stack.enter_context(servers.gateway(one, f"redis://127.0.0.1:{port}/0", core=None)) for one in ports]
        found: dict[str, list[Figures]] = {"1 gateway": [], "2 gateways": []}
        for _ in range(ROUNDS):
            for count, rounds in enumerate(found.values(), 1):
                database.flushdb()
                rounds.append(_measured(request, ports[:count], pids[:count]))
    return found


def _measured(request: Request, ports: Sequence[int], pids: Sequence[int]) -> Figures:
    used_s = 0.0

    def spent_s() -> float:
        return sum(map(servers.cpu_s, pids))

    def begin() -> None:
        nonlocal used_s
        used_s = spent_s()

    seen = asyncio.run(load(ports, request, connections=CONNECTIONS, duration_s=DURATION_S, begin=begin))
    used_s = max(spent_s() - used_s, 0.01)
    return Figures(seen.requests_per_s, seen.count / used_s, seen.p50_ms, seen.p99_ms, seen.failed)


def lines(found: Mapping[str, Sequence[Figures]]) -> list[str]:
    """Return the goals, then the table."""
    return [*(one.line() for one in reached(GOALS, found)), *table(found)]
