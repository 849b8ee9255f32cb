"""SQLAlchemy is an extra: without a result database nothing imports it, and with one its absence is a sentence."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import pytest

from shared.errors import DefinitionError
from shared.rows import packages

_LOADS = "import api.app, worker.app, sys; api.app.create_app(); print('sqlalchemy' in sys.modules)"


def test_gateway_and_worker_do_not_load_it_without_a_result_database() -> None:
    loaded = subprocess.run([sys.executable, "-c", _LOADS], check=True, capture_output=True, text=True)
    assert loaded.stdout == "False\n"


@pytest.mark.parametrize(
    ("url", "absent"), [("postgresql+psycopg://h/d", "psycopg"), ("mysql+pymysql://h/d", "pymysql"), ("sqlite://", "")]
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, url: str, absent: str
) -> None:
    packages.refuse_missing_packages(url)

    def found(name: str, **more: Any) -> ModuleSpec | None:
        return None if name in {"sqlalchemy", absent} else find_spec(name, **more)

    monkeypatch.setattr(packages, "find_spec", found)
    packages.refuse_missing_packages("")
    with pytest.raises(DefinitionError) as refused:
        packages.refuse_missing_packages(url)
    assert "pip install 'celeriac[database]'" in str(refused.value)
    assert absent in str(refused.value)
