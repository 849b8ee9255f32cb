"""`make clients`: generate, compile and use a client with each generator of docs/clients.md, and print what came of it.

python -m tests.clients [WORD...]: only the generators with one of these words in their name
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.clients import bodies
from tests.clients.page import GATEWAY, ROOT, Generator, generators
from tests.clients.toolchains import missing, prepare, ran
from tests.support.up import running_up

if TYPE_CHECKING:
    from collections.abc import Mapping

_FETCH = f"curl -s {GATEWAY}/openapi.json -o openapi.json\n"  # the committed document is tried, which is there
_NOT_GENERATED = {"node_modules", "openapi.json"}


@dataclass
class Outcome:
    """What came of a generator: its size in bytes, the seconds of each phase, and why the last phase failed."""

    generator: Generator
    size_bytes: int = 0
    took_s: dict[str, float] = field(default_factory=dict)
    skipped: str | None = None
    failed: str | None = None

    @property
    def row(self) -> str:
        """A row of the table that is printed."""
        (name, version), *_ = self.generator.versions.items()
        took = [
            f"{self.took_s[phase]:.0f} s" if phase in self.took_s else "-" for phase in ("generate", "compile", "use")
        ]
        verdict = f"skipped: {self.skipped}" if self.skipped else self.failed or "works"
        cells = [
            f"{self.generator.name:37}",
            f"{name} {version:8}",
            f"{self.size_bytes / 1000:6,.0f} kB",
            *took,
            verdict,
        ]
        return " | ".join(cells)


def main(words: list[str]) -> int:
    """Try the generators; return 1 if one of them fails, or is skipped where CI is true."""
    chosen = [one for one in generators() if not words or any(word in one.name for word in words)]
    folder = Path(tempfile.mkdtemp(prefix="celeriac-clients-"))
    try:
        environment = prepare(folder)
        with running_up(folder / "data", {"CELERIAC_CONTRACTS": "shared.jobs.etl"}) as up:
            outcomes = [_tried(one, folder / f"{number}", up.url, environment) for number, one in enumerate(chosen)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("generator | package | size | generates | compiles | runs | verdict")
    print("\n".join(outcome.row for outcome in outcomes), flush=True)
    skipped = os.environ.get("CI") == "true" and any(outcome.skipped for outcome in outcomes)
    return int(skipped or any(outcome.failed for outcome in outcomes))


def _tried(generator: Generator, folder: Path, url: str, environment: Mapping[str, str]) -> Outcome:
    outcome = Outcome(generator, skipped=missing(generator.name))
    if outcome.skipped:
        return outcome
    folder.mkdir()
    shutil.copy(ROOT / "openapi.json", folder)
    for phase, commands in generator.commands.items():
        print(f"== {generator.name}: {phase}", flush=True)
        script = commands.replace(_FETCH, "").replace(GATEWAY, url)
        began = time.monotonic()
        done = ran(script, folder, environment)
        outcome.took_s[phase] = time.monotonic() - began
        if phase == "generate":
            outcome.size_bytes = _size(folder)
        wrong = done.returncode or (phase == "use" and not _did_all(done.stdout))
        if wrong or phase == "use":
            print(done.stdout[-4_000:], flush=True)
        if wrong:
            outcome.failed = f"fails to {phase}"
            return outcome
    if lost := bodies.wrong(generator.name, folder, environment):
        print(lost[-4_000:], flush=True)
        outcome.failed = "does not take the bodies of README and examples"
    return outcome


def _did_all(printed: str) -> bool:
    """Tell whether a program printed how its job ended, the start of a Parquet file and the pointer of the problem."""
    return re.search(r"succeeded.*category.*PAR1.*\n.*422.*/(params|options)/", printed) is not None


def _size(folder: Path) -> int:
    """Return the bytes of the generated files."""
    own = [path for path in folder.iterdir() if path.name not in _NOT_GENERATED and not path.name.startswith("package")]
    files = [path for top in own for path in (top.rglob("*") if top.is_dir() else [top])]
    return sum(path.stat().st_size for path in files if path.is_file())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
