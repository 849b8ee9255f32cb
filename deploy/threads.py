"""Write the modules of `celeriac.client` that wait in threads, from those that wait in tasks.

    python -m deploy.threads celeriac/client

They differ in nothing else, so nothing is written twice; `make check` compares.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "celeriac" / "client"
MADE = {"aclient.py": "client.py", "acaller.py": "caller.py", "aschedules.py": "schedules.py"}
_RULES = [
    (r'\A"""[^"]*"""', '"""Made by `make client` from {source}: change that, and make it again."""'),
    (r"AsyncGenerator\[(.+), None\]", r"Generator[\1, None, None]"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b(async|await) ", ""),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\ba(closing|close|next|iter_bytes|read)\b", r"\1"),
    (r"\bceleriac\.client\.a(client|caller|schedules)\b", r"celeriac.client.\1"),
    (r"anyio\.to_thread\.run_sync\(([\w.]+)(, )?", r"\1("),
    (r"\banyio\b", "time"),
]


def made_of(name: str) -> str:
    """Return the module that waits in threads."""
    text = (SOURCE / name).read_text(encoding="utf-8")
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement.replace("{source}", name), text)
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format", "--quiet"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(SOURCE / MADE[name]), "-"]
        text = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout
    return text


def main() -> None:
    """Write the modules to the folder that is given."""
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for source, made in MADE.items():
        (folder / made).write_text(made_of(source), encoding="utf-8")


if __name__ == "__main__":
    main()
