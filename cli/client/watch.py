"""Follow a job to its end by its events, or by polling if events do not arrive."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from celeriac.client import Client, Job, Refused, Retries, Unreachable
from cli.pages.job import counts, waiting_text
from cli.pages.output import duration_s, progress_text, state_text
from shared.ledger.states import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

_POLL_S = 0.5  # wait of one poll without events; also the maximum age of shown progress
_LINE_EVERY_S = 2.0  # minimum interval between plain progress lines of one step
_FEW = 20  # up to this number, steps are shown one by one; above it, as counts per state
_PATIENCE = Retries(for_s=30, connect_for_s=30)  # a gateway that has answered may restart


class View(Protocol):
    """Shows the progress of a job."""

    def show(self, job: Mapping[str, Any]) -> None:
        """Show the current state of the job."""


def follow(gateway: Client, job_id: str, view: View, *, timeout_s: float | None = None) -> Job[Any]:
    """Show a job until it ends (or for `timeout_s`) and return it.

    With a time limit it polls, because a stream of events may be silent for long.
    Raises `Refused` for an unknown job and `Unreachable` if the gateway stays unreachable.
    """
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    job = gateway.get(job_id)
    view.show(job.document)
    known = gateway.with_retries(_PATIENCE)
    if deadline is None and not job.has_ended:
        with suppress(Unreachable, Refused):  # a proxy that buffers streams
            _by_events(known, job, view)
        job = known.get(job_id)
        view.show(job.document)
    while not job.has_ended and not _over(deadline):
        job = known.get(job_id, wait_s=_POLL_S)
        view.show(job.document)
    return job


def _by_events(gateway: Client, job: Job[Any], view: View) -> None:
    """Follow the event stream to its end; read the job again whenever a state changes.

    A job with many steps is read again only when its own state changes: the events have those of its steps.
    """
    shown = dict(job.document)
    steps = {step["name"]: step for step in shown["steps"]}
    for event in gateway.stream(job):
        step = steps.get(event.step)
        if event.name == "progress":
            progress = {name: event.document[name] for name in ("current", "total", "unit", "message")}
            (step or shown)["progress"] = progress
        elif event.name == "state" and step and len(steps) > _FEW:
            step["state"] = event.document["state"]
        elif event.name in {"state", "trimmed"}:
            shown = dict(gateway.get(job).document)
            steps = {step["name"]: step for step in shown["steps"]}
        else:
            continue
        view.show(shown)


def _over(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() > deadline


@contextmanager
def live_view(console: Console) -> Iterator[View]:
    """Yield a view for this console: progress bars on a terminal, else lines."""
    with ExitStack() as stack:
        if console.is_terminal:
            yield _Bars(stack.enter_context(_progress_of(console)))
        else:
            yield _Lines(console)


def _progress_of(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}"),
        TextColumn("{task.fields[said]}", markup=False),
        _Ran(),
        console=console,
    )


def _parts(job: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the parts to show, by name: the steps, or the job itself if it has no steps or many."""
    steps = job["steps"]
    if len(steps) > _FEW:
        done = sum(step["state"] == State.SUCCEEDED for step in steps)
        progress = {"current": done, "total": len(steps), "unit": "steps", "message": counts(steps)}
        waits = job["waiting_reason"] if job["state"] != State.RUNNING else None  # a running job's is that of a step
        return [(job["kind"], {**job, "progress": progress, "waiting_reason": waits})]
    return [(step["name"], step) for step in steps] or [(job["kind"], job)]


def _said(part: Mapping[str, Any]) -> str:
    return waiting_text(part) or progress_text(part["progress"])


class _Ran(ProgressColumn):
    """The run time of a step so far."""

    def render(self, task: Task) -> Text:
        ran, begun = task.fields["ran"], task.fields["begun"]
        if ran is None and begun is not None:
            ran = time.monotonic() - begun
        return Text("" if ran is None else f"{ran:.1f} s")


class _Bars:
    """One progress bar per step."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}
        self._begun: dict[int, float] = {}

    def show(self, job: Mapping[str, Any]) -> None:
        for index, (name, part) in enumerate(_parts(job)):
            if index not in self._tasks:
                self._tasks[index] = self._progress.add_task(name, total=1, state="", said="", ran=None, begun=None)
            if part["state"] == State.RUNNING:
                self._begun.setdefault(index, time.monotonic())
            self._draw(self._tasks[index], part, self._begun.get(index))

    def _draw(self, task: TaskID, part: Mapping[str, Any], begun: float | None) -> None:
        state, progress = part["state"], part["progress"] or {"current": 0, "total": None}
        total, current = (
            (progress["total"], progress["current"]) if state == State.RUNNING else (1, state == State.SUCCEEDED)
        )
        self._progress.tasks[task].total = total  # None makes the bar pulse; `update` cannot set it
        shown = state_text(state)
        self._progress.update(
            task,
            completed=current,
            state=f"[{shown.style}]{state}[/]" if shown.style else state,
            said=_said(part),
            ran=duration_s(part),
            begun=begun,
        )


class _Lines:
    """A line for each change of state, and for progress at intervals."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[int, str] = {}
        self._said: dict[int, tuple[float, str]] = {}

    def show(self, job: Mapping[str, Any]) -> None:
        for index, (name, part) in enumerate(_parts(job)):
            state, words = part["state"], _said(part)
            said_at, said = self._said.get(index, (0.0, ""))
            now = time.monotonic()
            moved = state == State.RUNNING and words != said and now - said_at >= _LINE_EVERY_S
            if state != self._states.get(index) or moved:
                self._console.print(f"{name}  {state}  {words}".rstrip(), markup=False)
                self._states[index], self._said[index] = state, (now, words)
