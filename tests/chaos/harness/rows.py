"""A row of the table: what was done to the service, what came of it, and whether that is what is promised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_S = 4.0
RECOVERY_GOAL_S = LEASE_S + 10
ANSWER_GOAL_S = 3.0
_COLUMNS = (
    "jobs",
    "lost",
    "stuck",
    "run after success",
    "side by side",
    "crashes",
    "false answers",
    "longest recovery (s)",
    "slowest answer (s)",
    "by hand",
)


@dataclass(frozen=True)
class Row:
    """What came of one scenario. `notes` say more of what was missed."""

    injected: str
    jobs: int
    lost: int
    stuck: int
    after_success: int
    side_by_side: int
    crashes: int  # programs that ended though nobody hurt them
    false_answers: int
    recovery_s: float
    answer_s: float
    by_hand: bool  # whether the service was not whole again afterwards
    notes: list[str] = field(default_factory=list)

    @property
    def misses(self) -> list[str]:
        """Which goals were missed."""
        nothing = (self.lost, self.stuck, self.after_success, self.side_by_side, self.crashes, self.false_answers)
        missed = [name for name, count in zip(_COLUMNS[1:], nothing, strict=False) if count]
        missed += ["longest recovery (s)"] if self.recovery_s > RECOVERY_GOAL_S else []
        missed += ["slowest answer (s)"] if self.answer_s > ANSWER_GOAL_S else []
        return missed + (["by hand"] if self.by_hand else [])

    def cells(self) -> list[str]:
        """Return the columns as text; what misses its goal is marked."""
        counts = (self.jobs, self.lost, self.stuck, self.after_success, self.side_by_side)
        texts = [f"{count:,}" for count in (*counts, self.crashes, self.false_answers)]
        texts += [f"{self.recovery_s:.1f}", f"{self.answer_s:.2f}", "yes" if self.by_hand else "no"]
        missed = set(self.misses)
        marked = [f"{text} !" if name in missed else text for name, text in zip(_COLUMNS, texts, strict=True)]
        return [self.injected, *marked]


def table(rows: Mapping[str, Row]) -> str:
    """Return the rows by scenario under their goals, as a table of Markdown, and under it what was missed."""
    goals = ["", "goal", "", "0", "0", "0", "0", "0", "0", f"{RECOVERY_GOAL_S:g}", f"{ANSWER_GOAL_S:g}", "no"]
    lines = [["scenario", "injected", *_COLUMNS], goals, *([name, *row.cells()] for name, row in rows.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(goals))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"{name}: {note}" for name, row in rows.items() for note in row.notes]
    return "\n".join([*texts, "", *notes])
