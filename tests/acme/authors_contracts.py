"""Kinds of authors who try everything that a body can do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits, Retry
from shared.errors import TaskFailure, TransientFailure
from shared.workflows import Chain, Chord, Group, Node, Results, WorkflowContract, step


class Done(BaseModel):
    """What a body found out."""

    said: str = Field(default="", description="What it has to say.")


class Misbehave(
    Contract[Done],
    kind="acme.misbehave",
    queue="etl",
    limits=Limits(soft_s=20, hard_s=30),
    retry=Retry(max_retries=1, backoff_s=0.01, backoff_max_s=0.02),
    examples=[{"how": "well"}],
):
    """Do something that no body should do."""

    how: str = Field(description="Name of the function in tests/acme/hostile.py.")


class Use(
    Contract[Done],
    kind="acme.use_run",
    queue="etl",
    limits=Limits(soft_s=20, hard_s=30),
    retry=Retry(max_retries=2, backoff_s=0.01, backoff_max_s=0.02),
    examples=[{"what": "prints"}],
):
    """Use one of the things that a run offers."""

    what: str = Field(description="Name of the function in tests/acme/authors.py.")
    uri: str = Field(default="", description="A file.")
    then: str = Field(default="succeed", description="What to do in the end.")


class FanOut(
    WorkflowContract[Done],
    kind="acme.fan_out",
    queue="etl",
    limits=Limits(soft_s=20, hard_s=30),
    retry=Retry(max_retries=2, backoff_s=0.01, backoff_max_s=0.02),
    examples=[{"folder": "files", "how": "chord"}],
):
    """Do something for each file in a folder."""

    folder: str = Field(description="The folder, which also has what a body remembers.")
    how: str = Field(description="What to return.")

    def plan(self) -> Node:
        """Return the step that lists the files, and one beside it that may fail."""
        return Group(
            step("list", Use(what="lists", uri=self.folder)),
            step("absent", Use(what="reads", uri="artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/a"), may_fail=True),
        )

    def expand(self, results: Mapping[str, Any]) -> Node | None:
        """Return a step for each listed file."""
        assert results.keys() == {"list", "absent"}
        assert results["absent"] is None
        names = results["list"].said.split()
        parts = [step(f"part_{name}", self._line(name)) for name in names]
        others: dict[str, Callable[[], Any]] = {
            "nothing": lambda: None,
            "none of a group": Group,
            "the same name": lambda: step("list", self._line("a")),
            "too many": lambda: Group(*(step(f"part_{n}", self._line("a")) for n in range(1_000))),
            "another thing": lambda: names,
            "group": lambda: Group(*parts),
            "a part fails": lambda: Chain(
                Group(*parts), step("flaky", self._use("fails_once")), step("end", self._line("end"))
            ),
        }
        if self.how in others:
            return others[self.how]()  # type: ignore[no-any-return]  # some of it is wrong
        self._meet_trouble()
        return Chord(parts, step("end", self._use("waits_for_go" if self.how == "holds" else "writes_end")))

    def _meet_trouble(self) -> None:
        match self.how:
            case "raises":
                raise ValueError("no luck")
            case "refuses":
                raise TaskFailure("too_big", "The folder is too big.")
            case "is killed" if first_time(self.folder):
                os.kill(os.getpid(), signal.SIGKILL)
            case "is flaky" if first_time(self.folder):
                raise TransientFailure("flaky", "It is transient.")
            case "waits":
                Path(self.folder, ".waits").touch()
                while True:
                    time.sleep(0.05)

    def _use(self, what: str) -> Use:
        return Use(what=what, uri=self.folder)

    def _line(self, name: str) -> Use:
        return Use(what="writes_a_line", uri=f"{self.folder}/.lines {name}")


class AwaitChildren(
    WorkflowContract[Done],
    kind="acme.await_children",
    queue="etl",
    limits=Limits(soft_s=20, hard_s=30),
    examples=[{"folder": "files", "how": "succeed"}],
):
    """Submit jobs, and go on with their results."""

    folder: str = Field(description="The folder, which also has what a body remembers.")
    how: str = Field(description="What happens to the children.")

    def plan(self) -> Node:
        """Return the step that submits them, and one after it."""
        return Chain(
            step("submits", Use(what="submits_for_a_workflow", uri=self.folder, then=self.how)),
            step("after", Use(what="lists", uri=self.folder)),
        )

    def expand(self, results: Results) -> Node | None:
        """Return a step that says what the children said."""
        assert not results.children("after")
        found = results.children("submits")
        if None in found.values():
            raise TaskFailure("child_failed", ", ".join(name for name, result in found.items() if result is None))
        told = " ".join(f"{name}={found[name].said}" for name in sorted(found))
        return step("end", Use(what="writes_a_line", uri=f"{self.folder}/.told {told}"))


def first_time(folder: str) -> bool:
    """Return whether it is the first call for this folder."""
    marker = Path(folder, ".first")
    is_first = not marker.exists()
    marker.touch()
    return is_first
