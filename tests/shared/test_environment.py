"""A wrong setting is named as the person set it, and as the documentation calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.settings import GatewaySettings
from shared.broker.settings import BrokerSettings
from shared.connections.callbacks import CallbackSettings
from shared.environment import read, refusal_ends_the_program, variables_of
from shared.errors import DefinitionError
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ROOT / "docs" / "settings.md").read_text("utf-8")


def refused(settings: type[BrokerSettings | CallbackSettings | GatewaySettings | WorkerSettings]) -> str:
    with pytest.raises(DefinitionError) as found:
        read(settings)
    return str(found.value)


def test_each_wrong_variable_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, value, what is wrong and what it means; no class, no type of an error, no link."""
    monkeypatch.setenv("CELERIAC_LEDGER_TIMEOUT_S", "abc")
    monkeypatch.setenv("CELERIAC_MAX_BODY_BYTES", "0")
    first, second = refused(GatewaySettings).splitlines()
    assert first == "CELERIAC_MAX_BODY_BYTES='0' must be greater than 0. It means: Largest JSON body."
    assert second == (
        "CELERIAC_LEDGER_TIMEOUT_S='abc' must be a valid number, unable to parse string as a number. "
        "It means: Seconds after which a call to the ledger times out and the client gets 503."
    )


def test_a_name_in_another_case_is_that_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are read in any case; the documentation's name stands beside it."""
    monkeypatch.setenv("celeriac_lease_s", "1")
    assert refused(BrokerSettings).startswith(
        "celeriac_lease_s='1' (CELERIAC_LEASE_S in docs/settings.md) must be greater than or equal to 2. It means: "
    )


def test_several_together_are_told_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule about two settings says which, and what to set."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://guest:secret@mq/")
    monkeypatch.delenv("CELERY_RESULT_BACKEND", raising=False)
    monkeypatch.delenv("CELERIAC_LEDGER_URL", raising=False)
    said = refused(BrokerSettings)
    assert said == (
        "CELERY_BROKER_URL does not name Redis or Valkey, and the ledger needs one: "
        "set CELERIAC_LEDGER_URL=redis://host:6379/0"
    )


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is, once."""
    monkeypatch.setenv("CELERIAC_WEBHOOK_SECRET", "hunter2")
    said = refused(CallbackSettings)
    assert "hunter2" not in said
    assert said.count("CELERIAC_WEBHOOK_SECRET") == 1


@pytest.mark.parametrize("settings", [BrokerSettings, GatewaySettings, WorkerSettings, CallbackSettings])
def test_the_name_in_a_message_is_that_of_the_documentation(settings: type[BrokerSettings]) -> None:
    """Every field's first variable has a row in docs/settings.md."""
    names = [variables_of(settings, field)[0] for field in settings.model_fields]
    assert [name for name in names if f"`{name}`" not in DOCUMENTED] == []


def test_a_refusal_is_the_only_thing_that_is_said() -> None:
    """Outside of it, other errors keep their stack trace."""
    with pytest.raises(SystemExit) as ended, refusal_ends_the_program():
        raise DefinitionError("CELERIAC_X is wrong.")
    assert ended.value.code == "Not started: CELERIAC_X is wrong."
    with pytest.raises(ZeroDivisionError), refusal_ends_the_program():
        _ = 1 / 0


@pytest.mark.parametrize(
    ("words", "wrong", "said"),
    [
        (
            ["uvicorn", "--factory", "api.app:create_app"],
            {"CELERIAC_MAX_BODY_BYTES": "1x"},
            "CELERIAC_MAX_BODY_BYTES='1x' must",
        ),
        (
            ["uvicorn", "--factory", "api.app:create_app"],
            {"CELERIAC_HOST_NAMES": "https://jobs.example.com"},
            "CELERIAC_HOST_NAMES: 'https://jobs.example.com' is not a name",
        ),
        (["celery", "-A", "worker.app", "worker"], {"CELERIAC_THREADS": "x"}, "CELERIAC_THREADS='x' must"),
        (["celery", "-A", "worker.app", "worker"], {"WORKER_FAMILIES": "etll"}, "WORKER_FAMILIES names 'etll'"),
        (["celery", "-A", "worker.app", "beat"], {"CELERIAC_LEASE_S": "0"}, "CELERIAC_LEASE_S='0' must"),
    ],
)
def test_a_program_with_a_wrong_setting_says_one_line(words: list[str], wrong: dict[str, str], said: str) -> None:
    """It is the first and the last thing on the screen, and the exit code is 1."""
    environment = {**os.environ, "WORKER_FAMILIES": "callbacks", **wrong}
    command = [sys.executable, "-P", "celeriac/start.py", *words]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    (line,) = [line for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
    assert line.startswith(f"Not started: {said}")
    assert ran.returncode == 1
