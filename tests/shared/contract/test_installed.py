"""What installed packages declare as entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.contract import catalogue as catalogues
from shared.contract.definition import known_queues
from shared.contract.installed import KINDS, TASKS, installed
from shared.errors import DefinitionError

_CONTRACT = """
from pydantic import BaseModel, Field
from celeriac import Contract, Limits

class Said(BaseModel):
    text: str = Field(description="A text.")

class SayText(
    Contract[Said], kind="{kind}", limits=Limits(soft_s=5, hard_s=6), queue="etl", examples=[{{"text": "hello"}}]
):
    '''Say a text.'''

    text: str = Field(description="A text.")
"""


def install(folder: Path, name: str, entry_points: str) -> None:
    """Install a distribution that has nothing but entry points."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(entry_points, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which packages are installed, also for what was looked up before."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("shared.contract.definition", "shared.contract.catalogue"):
        monkeypatch.setattr(f"{module}.installed", installed.__wrapped__)
    return tmp_path


def test_a_name_is_a_family_and_a_queue(folder: Path) -> None:
    """In either group, beside what others declare."""
    install(folder, "orders", f"[{KINDS}]\norders = orders.contracts\n[{TASKS}]\norders = orders.tasks\n")
    assert installed.__wrapped__(KINDS) == {"orders": "orders.contracts"}
    assert installed.__wrapped__(TASKS) == {"orders": "orders.tasks"}
    assert known_queues()[-1] == "orders"


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (["Orders = a.contracts"], "'Orders' of celeriac.kinds (a.contracts) is not the name of a family"),
        (["etl = a.contracts"], "has the name of a family of the service. Choose another"),
        (["orders = a.contracts", "orders = b.contracts"], "is declared by two packages"),
    ],
)
def test_a_name_that_cannot_be_a_family_is_refused(declared: list[str], said: str, folder: Path) -> None:
    """With the entry point."""
    for number, line in enumerate(declared):
        install(folder, f"package{number}", f"[{KINDS}]\n{line}\n")
    with pytest.raises(DefinitionError) as raised:
        installed.__wrapped__(KINDS)
    assert said in str(raised.value)


def test_the_kinds_are_those_of_the_family(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the catalogue without a variable; those of another family would have no worker."""
    monkeypatch.setenv("CELERIAC_CONTRACTS", "")
    install(folder, "talk", f"[{KINDS}]\ntalk = talk_contracts\n")
    (folder / "talk_contracts.py").write_text(_CONTRACT.format(kind="talk.say_text"), encoding="utf-8")
    assert list(catalogues.catalogue.__wrapped__()) == ["talk.say_text"]
    install(folder, "chat", f"[{KINDS}]\nchat = chat_contracts\n")
    (folder / "chat_contracts.py").write_text(_CONTRACT.format(kind="chatter.say_text"), encoding="utf-8")
    with pytest.raises(
        DefinitionError, match=r"'chat' of celeriac\.kinds has the kind chatter\.say_text, whose family"
    ):
        catalogues.catalogue.__wrapped__()
