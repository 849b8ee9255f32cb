"""Send and fetch files, with a bar for each on a terminal."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from cli.pages import output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from celeriac.client import Client, JobArtifact
    from shared.contract.artifacts import Artifact

STANDARD = "-"  # stands for standard input and output
_NAME_OF_INPUT = "standard-input"
_LONGEST_NAME = 128


class Transfers:
    """Sends and fetches files of one gateway, one after the other."""

    def __init__(self, gateway: Client, bars: Progress) -> None:
        self._gateway = gateway
        self._bars = bars

    def upload(self, source: str, *, name: str | None = None, media_type: str | None = None) -> Artifact:
        """Send a file, or standard input. Raises `OSError` if it cannot be read."""
        name = name or upload_name(source)
        with _as_file(source) as path:
            return self._gateway.upload(path, name=name, media_type=media_type, progress=self._bar(name))

    def download(self, job_id: str, file: JobArtifact, to: Path, *, overwrite: bool) -> Path:
        """Fetch a file to a path. Raises `OSError` if it cannot be written."""
        bar = self._bar(file.name)
        return self._gateway.download(job_id, file.name, to, step=file.step, overwrite=overwrite, progress=bar)

    def print_file(self, job_id: str, file: JobArtifact) -> None:
        """Fetch a file and, once its checksum is known to be right, write it to standard output."""
        with tempfile.TemporaryDirectory(prefix="celeriac-") as folder:
            fetched = self.download(job_id, file, Path(folder) / "content", overwrite=True)
            with fetched.open("rb") as content:
                shutil.copyfileobj(content, sys.stdout.buffer)
            sys.stdout.buffer.flush()

    def _bar(self, name: str) -> Callable[[int, int], None]:
        task = self._bars.add_task(output.printable(name), total=None)
        return lambda now, whole: self._bars.update(task, completed=now, total=whole)


class _Bytes(ProgressColumn):
    """How much of a file has gone, and how fast."""

    def render(self, task: Task) -> Text:
        done, whole = (output.amount(size or 0, "bytes") for size in (task.completed, task.total))
        speed = task.finished_speed or task.speed
        return Text(f"{done} of {whole}" + (f", {output.amount(speed, 'bytes')}/s" if speed else ""))


@contextmanager
def transfers(gateway: Client, console: Console) -> Iterator[Transfers]:
    """Yield what sends and fetches files; it shows progress if the console is a terminal."""
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        _Bytes(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bars:
        yield Transfers(gateway, bars)


def upload_name(source: str) -> str:
    """Return the name of an upload to which nobody gives one: that of the file, without what a name must not have."""
    if source == STANDARD:
        return _NAME_OF_INPUT
    return re.sub(r"[^A-Za-z0-9._-]", "_", Path(source).name)[-_LONGEST_NAME:].lstrip("._-") or "file"


@contextmanager
def _as_file(source: str) -> Iterator[Path]:
    """Yield the path of a file. Standard input or a pipe becomes one: the digest is sent before the content."""
    if source != STANDARD and Path(source).is_file():
        yield Path(source)
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-"))
        given = sys.stdin.buffer if source == STANDARD else stack.enter_context(Path(source).open("rb"))
        path = Path(folder) / "content"
        with path.open("wb") as content:
            shutil.copyfileobj(given, content)
        yield path
