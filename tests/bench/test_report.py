"""Goals of the benchmark are compared round by round, and said to be met or not."""

from __future__ import annotations

from bench.report import Figures, Goal, lines


def _figures(*rates: float) -> list[Figures]:
    return [Figures(per_s=rate, per_cpu_s=rate, p50_ms=1, p99_ms=rate / 10) for rate in rates]


ROUNDS = {"ours": _figures(80, 90, 400), "no-op": _figures(100, 100, 500), "peer": _figures(20, 10, 100)}


def test_a_ratio_is_that_of_the_same_round_and_of_the_best_peer() -> None:
    """A round in which the machine did something else counts for both."""
    assert Goal("ours", "per_s", least=0.7, other=["no-op"]).values(ROUNDS) == [0.8, 0.9, 0.8]
    assert Goal("ours", "per_s", least=5, other=["peer", "absent"]).values(ROUNDS) == [4, 9, 4]
    assert Goal("ours", "per_s", least=5, other=["absent"]).values(ROUNDS) == []


def test_each_goal_says_whether_it_is_met() -> None:
    """The ratios come first; what was not measured has no line."""
    goals = [
        Goal("ours", "per_s", least=450),
        Goal("ours", "per_s", least=0.7, other=["no-op"]),
        Goal("ours", "p99_ms", most=0.5, other=["no-op"]),
        Goal("ours", "per_s", least=5, other=["absent"]),
    ]
    said = list(lines(goals, ROUNDS))
    assert [line.rpartition(": ")[2] for line in said[:4]] == [
        "met",
        "not met, by a factor of 1.60",
        "not met, by a factor of 5.00",
        "",
    ]
