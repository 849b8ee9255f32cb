"""What docs/clients.md says of each generator, as commands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "clients.md"
GATEWAY = "http://127.0.0.1:8000"  # as the page calls it
_SECTION = re.compile(r"^## (?P<name>.*)\n(?P<text>(?:(?!^## ).*\n)*)", re.MULTILINE)
_COMMANDS = re.compile(r"<!-- (?:client|run): (?P<phase>\w+) -->\n```sh\n(?P<text>.*?)```", re.DOTALL)
_VERSION = re.compile(r"((?:@[\w-]+/)?[\w-]+)(?:\[\w+\])?(?:@|==)(\d[\w.]*)")


@dataclass(frozen=True)
class Generator:
    """A section of the page: the commands of each phase (install, generate, compile, use), in the order of the page."""

    name: str
    commands: dict[str, str]

    @property
    def versions(self) -> dict[str, str]:
        """The packages that it installs, with their versions; the first one is the generator."""
        return dict(_VERSION.findall(self.commands["install"]))


def generators() -> list[Generator]:
    """Return the generators of the page, in its order."""
    return [
        Generator(section["name"], {found["phase"]: found["text"] for found in _COMMANDS.finditer(section["text"])})
        for section in _SECTION.finditer(PAGE.read_text(encoding="utf-8"))
    ]
