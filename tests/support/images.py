"""What Dockerfile.worker copies of the tree."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copies_of(family: str, stage: str = "worker") -> list[str] | None:
    """Return what is copied for a family, stage by stage, or `None` where a stage is missing."""
    stages: dict[str, tuple[str, list[str]]] = {}
    for line in (ROOT / "Dockerfile.worker").read_text("utf-8").replace("${FAMILY}", family).splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            name = words[-1]
            stages[name] = (words[1], [])
        elif words[:1] == ["COPY"] and not words[1].startswith("--from="):
            stages[name][1].extend(words[1:-1])
    copies: list[str] = []
    while not stage.startswith("python:"):
        if stage not in stages:
            return None
        stage, of_stage = stages[stage]
        copies += of_stage
    return copies
