"""Kinds that tests add from outside, as a team would."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from shared.contract.artifacts import Artifact, ArtifactUri
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import Chain, Chord, MapStep, Node, PlanRefused, fed_step, step


class Noted(BaseModel):
    """What a run noted."""

    line_count: int = Field(ge=0, description="Lines in the notebook after this run.")
    note: Artifact = Field(description="The line that this run wrote.")


class NoteSpec(BaseModel):
    """Where to note a run, and how to behave."""

    notebook: str = Field(description="File that gets one line a run.")
    behave: Literal[
        "well",
        "flaky",
        "badly",
        "buggy",
        "hungry",
        "deaf",
        "suicidal",
        "verbose",
        "quiet",
        "exits",
        "interrupts",
        "closes",
        "full",
        "babbles",
        "stubborn",
        "grateful",
    ] = Field(default="well", description="How the body behaves.")
    lasts_s: float = Field(default=0, ge=0, le=600, description="How long the body takes, in seconds.")


class TakeNote(
    NoteSpec,
    Contract[Noted],
    kind="acme.take_note",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    retry=Retry(max_retries=2, backoff_s=0.05, backoff_max_s=0.1),
    examples=[{"notebook": "notes.txt"}],
):
    """Write a line into a notebook, once a run."""


class CopyNote(
    NoteSpec,
    Contract[Noted],
    kind="acme.copy_note",
    queue="report",
    limits=Limits(soft_s=60, hard_s=90),
    examples=[{"notebook": "notes.txt", "note": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/note.txt"}],
):
    """Copy another run's line into a notebook."""

    note: Annotated[ArtifactUri, FedFromUpstream("file")] = Field(description="The line to copy.")


class BindNotes(
    NoteSpec,
    Contract[Noted],
    kind="acme.bind_notes",
    queue="report",
    limits=Limits(soft_s=60, hard_s=90),
    examples=[{"notebook": "n.txt", "notes": ["artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/note.txt"]}],
):
    """Put several runs' lines into one notebook."""

    notes: Annotated[list[ArtifactUri], FedFromUpstream("file")] = Field(description="The lines to bind.")


class NoteMany(
    WorkflowContract[Noted],
    kind="acme.note_many",
    queue="etl",
    limits=Limits(soft_s=120, hard_s=180),
    examples=[{"notebook": "notes.txt", "binder": "binder.txt"}],
):
    """Take three notes in parallel and bind them."""

    notebook: str = Field(description="File for the notes.")
    binder: str = Field(description="File for the bound notes; another one.")

    def plan(self) -> Node:
        """Return a chord of three notes with one binding."""
        if self.notebook == self.binder:
            raise PlanRefused([(("binder",), "The notes are in that file. Name another file.")])
        notes = [step(f"note_{number}", TakeNote(notebook=self.notebook)) for number in range(3)]
        return Chord(notes, fed_step("bind", BindNotes, NoteSpec(notebook=self.binder)))


class NoteTwice(
    WorkflowContract[Noted],
    kind="acme.note_twice",
    queue="etl",
    limits=Limits(soft_s=120, hard_s=180),
    examples=[{"notebook": "notes.txt", "copybook": "copies.txt"}],
):
    """Take a note and copy it, as two steps."""

    notebook: str = Field(description="File for the note.")
    copybook: str = Field(description="File for the copy.")
    behave: Literal["well", "badly"] = Field(default="well", description="How the first step behaves.")

    def plan(self) -> Node:
        """Return note -> copy."""
        return Chain(
            step("note", TakeNote(notebook=self.notebook, behave=self.behave)),
            fed_step("copy", CopyNote, NoteSpec(notebook=self.copybook)),
        )


class NotedEach(BaseModel):
    """What the items noted."""

    results: list[Noted] = Field(description="What each noted.")


class NoteEach(
    WorkflowContract[NotedEach],
    kind="acme.note_each",
    queue="etl",
    limits=Limits(soft_s=120, hard_s=180),
    examples=[{"notebook": "notes.txt", "lasts_s": [0.1, 0.1]}],
):
    """Take a note for each duration, in a map whose items have a time limit."""

    notebook: str = Field(description="File for the notes.")
    lasts_s: list[float] = Field(min_length=1, max_length=9, description="How long each takes, in seconds.")
    item_time_limit_s: float = Field(default=1, description="The time limit of each, in seconds.")

    def plan(self) -> Node:
        """Return the map."""
        items = tuple({"lasts_s": lasts_s} for lasts_s in self.lasts_s)
        shared = {"notebook": self.notebook}
        return MapStep("notes", TakeNote, shared, items=items, item_time_limit_s=self.item_time_limit_s)
