"""Goals of the benchmark are compared round by round, and said to be met or not."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

from bench.chart import svg
from bench.report import Figures, Goal, reached, told


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
        Goal("ours", "p99_ms", most=0.5, other=["no-op"], left="the clock"),
        Goal("ours", "per_s", least=5, other=["absent"]),
    ]
    found = reached(goals, ROUNDS)
    assert [one.line().rpartition(", ")[2].partition(": ")[2] for one in found] == [
        "met",
        "missed by a factor of 1.60; what is left: the clock",
        "missed by a factor of 5.00",
    ]
    assert [one["met"] for one in told(found).values()] == [True, False, False]


def test_the_chart_has_a_bar_a_goal() -> None:
    """Longer to the left of the goal where less of it is reached, and never beyond its edge."""
    names = ["ours", "no-op", "peer"]
    found = reached(
        [Goal(name, "per_s", least=least) for name, least in zip(names, (90, 200, 10_000), strict=True)], ROUNDS
    )
    drawn = fromstring(svg(found))  # noqa: S314 - our own
    texts = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    _, *bars = drawn.iter("{http://www.w3.org/2000/svg}rect")
    assert [text for text in texts if text and text.startswith("rate")] == [f"rate of {name}" for name in names]
    assert [float(bar.attrib["width"]) for bar in bars] == [0, 90, 180]
