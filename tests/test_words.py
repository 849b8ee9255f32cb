"""The words of CONTRIBUTING.md are those of code, comments, texts and pages; the phrases it refuses are nowhere."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = ROOT / "CONTRIBUTING.md"
SOURCES = ("api", "bench", "celeriac", "cli", "deploy", "docs", "examples", "shared", "tests", "worker")
_READ = {".jinja", ".lua", ".md", ".py", ".toml", ".yml"}
_BARE = r"longer|more|less|better|reason"  # "is no longer", "is no better than" are plain English


def _refused() -> re.Pattern[str]:
    """Return what matches a refused phrase: those in backticks in the first column of the glossary's second table."""
    table = GLOSSARY.read_text("utf-8").partition("\n| not | but |\n")[2].partition("\n\n")[0]
    phrases = [phrase for row in table.splitlines() for phrase in re.findall(r"`(.+?)`", row.split("|")[1])]
    patterns = [re.escape(phrase).replace(r"\ ", r"\s+") for phrase in phrases]
    return re.compile(
        r"(?<!there )\b(?:" + "|".join(one.replace("…", rf"(?!(?:{_BARE})\b)\w+") for one in patterns) + r")\b",
        re.IGNORECASE,
    )


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield what a file says in words, with its line: of Python, strings, comments and names of functions."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        yield 1, text
        return
    spoken = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in spoken:
            yield token.start[0], token.string
        elif before == "def":  # the names of tests are sentences
            yield token.start[0], token.string.replace("_", " ")
        before = token.string


def _found(path: Path, refused: re.Pattern[str]) -> Iterator[str]:
    for line, text in _texts(path):
        for match in refused.finditer(text):
            yield f"{path.relative_to(ROOT)}:{line + text.count(chr(10), 0, match.start())}: {match[0]}"


@pytest.mark.parametrize("source", [*SOURCES, "README.md", "CHANGELOG.md", "SECURITY.md"])
def test_refused_phrases_are_nowhere(source: str) -> None:
    """What the glossary refuses is said otherwise."""
    whole, refused = ROOT / source, _refused()
    paths = whole.rglob("*") if whole.is_dir() else [whole]
    read = [path for path in paths if path.suffix in _READ and path != Path(__file__)]
    assert [found for path in sorted(read) for found in _found(path, refused)] == []


def test_a_refused_phrase_would_be_found(tmp_path: Path) -> None:
    """In strings, comments and functions' names, over the end of a line, and not where words mean something else."""
    refused = _refused()
    refuse = [
        "It is\n    no integer.",
        "Mend it.",
        "does it anew",
        "failures that can pass",
        "as many as may fit",
        "test it is no number",
        "nothing moves any more",
        "It is somebody else's.",
    ]
    assert [text for text in refuse if not refused.search(text)] == []
    assert [text for text in ("there is no file", "is no longer there", "amendment") if refused.search(text)] == []
    named = tmp_path / "named.py"
    named.write_text("mend = 1  # fixed\ndef test_it_is_no_number(): pass\n")
    assert [text for _, text in _texts(named)] == ["# fixed", "test it is no number"]
