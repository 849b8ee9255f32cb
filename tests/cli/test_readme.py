"""What README and docs say is so: commands are run, outputs compared, settings and kinds complete."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from api.settings import GatewaySettings
from shared.contract.catalogue import Catalogue
from shared.environment import variables_of
from tests.support.up import ROOT, running_up, write_own_kind
from worker.settings import WorkerSettings

if TYPE_CHECKING:
    from pathlib import Path

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "authors").glob("*.md"))]
_SETTINGS = ROOT / "docs" / "settings.md"
_BLOCK = re.compile(r"<!-- (?P<what>run|prints)(?:: \w+)? -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([\w./-]*)(?:#([\w-]+))?\)")
_END = "@@ the next block @@"
_BOUND_S = 300
_VOLATILE = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<sha256>"),
    (re.compile(r'"request_id":"[0-9a-f]+"'), "<request id>"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?"), "<time>"),
    (re.compile(r"\b\d{13}-\d+\b"), "<event id>"),
    (re.compile(r"\d+\.\d s\b"), "<duration>"),
    (re.compile(r"127\.0\.0\.1:\d{4,5}\b"), "<gateway>"),
    (re.compile(r" +$", re.MULTILINE), ""),
)


def comparable(text: str) -> str:
    """Return text without what differs from run to run."""
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text.strip()


def blocks(page: Path) -> list[tuple[str, str | None]]:
    """Return the commands of a page in order, each with what it is said to print."""
    found: list[tuple[str, str | None]] = []
    for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["what"] == "run":
            found.append((block["text"], None))
        else:
            found[-1] = (found[-1][0], block["text"])
    return found


def run(page: Path, folder: Path, url: str, kinds: str) -> None:
    """Run the commands of a page in one shell and in order, in `folder`; compare what they print.

    Python finds the packages in the folder `kinds`.
    """
    folder.mkdir()
    told = blocks(page)
    script = f"\necho; echo '{_END}'\n".join(["set -euo pipefail", *(commands for commands, _ in told)])
    bin_folder = ROOT / ".venv" / "bin"
    path = f"{bin_folder}:{os.environ['PATH']}"
    installed = folder / "installed"  # for `pip install .`, which reaches no index
    environment = {
        **os.environ,
        "CELERIAC_URL": url,
        "PATH": path,
        "PYTHONPATH": f"{kinds}:{installed}",
        "PYTEST_ADDOPTS": "-p no:schemathesis",  # a plugin that authors do not have
        "PIP_TARGET": str(installed),
        "PIP_NO_BUILD_ISOLATION": "false",
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
    }
    shell = subprocess.run(
        ["bash", "-c", script.replace("http://127.0.0.1:8000", url)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_BOUND_S,
        check=False,
    )
    _, *printed = shell.stdout.split(_END)
    assert shell.returncode == 0, f"{page.name}: {shell.stdout[-2_000:]}{shell.stderr[-2_000:]}"
    assert len(printed) == len(told)
    for (commands, expected), actual in zip(told, printed, strict=True):
        if expected is not None:
            assert comparable(expected) == comparable(actual), f"{page.name}: {commands}"


@pytest.mark.integration
@pytest.mark.parametrize(
    "pages", [[README], pytest.param(PAGES[1:], marks=pytest.mark.journey)], ids=["README", "docs"]
)
def test_the_commands_print_what_the_pages_say(pages: list[Path], tmp_path: Path) -> None:
    """Every command of README and docs runs, page by page, against one service with the README's own kind."""
    own_kind = write_own_kind(tmp_path / "own", among="shared.jobs", pages=dict.fromkeys([README, *pages]))
    with running_up(tmp_path / "data", own_kind) as up:
        for page in pages:
            run(page, tmp_path / page.stem, up.url, own_kind["PYTHONPATH"])


def test_every_setting_is_listed() -> None:
    """The settings table has every variable of gateway and workers."""
    listed = set(re.findall(r"^\| `([A-Z_]+)`", _SETTINGS.read_text(encoding="utf-8"), re.MULTILINE))
    settings = (GatewaySettings, WorkerSettings)
    assert {variables_of(each, field)[0] for each in settings for field in each.model_fields} <= listed


def test_every_kind_is_on_a_page() -> None:
    """A kind that can be submitted is named, in README or docs."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [kind for kind in Catalogue.load(["shared.jobs"]) if f"`{kind}`" not in text] == []


def test_links_lead_somewhere() -> None:
    """A link to a page of ours, or to a heading of one, is not dead."""
    for page in PAGES:
        for target, anchor in _LINK.findall(page.read_text(encoding="utf-8")):
            linked = page.parent / target if target else page
            assert linked.is_file(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(linked), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_a_kind_is_added_from_outside(tmp_path: Path) -> None:
    """The README's own kind is complete: a contract and a task in a package of its own."""
    write_own_kind(tmp_path)
    assert {path.name for path in (tmp_path / "acme").iterdir()} == {"contracts.py", "tasks.py"}
