"""Kinds whose runs leave a trace in a file, so that what ran, when and beside what is known from there alone."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.contract.definition import Contract, Limits
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import Chain, Chord, Group, Node, step
from tests.chaos.kinds.specs import LIMITS, MAX_CRASHES, RETRY, Traced, TraceSpec


class LeaveTrace(
    TraceSpec,
    Contract[Traced],
    kind="chaos.leave_trace",
    queue="etl",
    limits=LIMITS,
    retry=RETRY,
    max_crashes=MAX_CRASHES,
    examples=[{"journal": "journal.txt", "label": "first"}],
):
    """Write a line when the run begins, while it lives, and when it ends."""

    note: str = Field(default="", description="The older version does not have this one.")


class LeaveNewTrace(
    TraceSpec,
    Contract[Traced],
    kind="chaos.leave_new_trace",
    queue="etl",
    limits=LIMITS,
    retry=RETRY,
    max_crashes=MAX_CRASHES,
    examples=[{"journal": "journal.txt", "label": "first"}],
):
    """Do the same under a kind that the older version does not have."""


class Woven(BaseModel):
    """What a workflow returns: that depends on its shape."""

    model_config = ConfigDict(extra="allow")


class WeaveTraces(
    WorkflowContract[Woven],
    kind="chaos.weave_traces",
    queue="etl",
    limits=Limits(soft_s=300, hard_s=400),
    examples=[{"journal": "journal.txt", "label": "first", "shape": "chain"}],
):
    """Run four traced steps; step `n` of the workflow `label` is labelled `label:n`."""

    journal: str = Field(description="File that gets the lines.")
    label: str = Field(pattern=r"^\S+$", description="What the scenario calls this job.")
    shape: Literal["chain", "chord", "group"] = Field(description="How the steps hang together.")
    lasts_s: float = Field(default=0, ge=0, le=60, description="How long each step takes, in seconds.")

    def plan(self) -> Node:
        """Return a chain, a chord of three with one after them, or a group of which one step fails and may."""
        if self.shape == "group":
            return Group(*(step(f"s{n}", self._trace(n, fails=n == 0), may_fail=n == 0) for n in range(4)))
        steps = [step(f"s{n}", self._trace(n)) for n in range(4)]
        return Chain(*steps) if self.shape == "chain" else Chord(steps[:3], steps[3])

    def _trace(self, number: int, *, fails: bool = False) -> LeaveTrace:
        label = f"{self.label}:{number}"
        return LeaveTrace(journal=self.journal, label=label, lasts_s=self.lasts_s, fails=fails)
