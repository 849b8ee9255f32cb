"""The Celery application that everything shares."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.broker.celery import make_celery
from shared.broker.settings import BrokerSettings
from shared.ledger.backend import LedgerBackend


def test_celerys_own_variable_names_the_ledger_and_not_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery takes CELERY_RESULT_BACKEND over its settings; the backend is the ledger's nevertheless, at that URL."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://guest:guest@127.0.0.1:1//")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://127.0.0.1:2/3")
    settings = BrokerSettings()
    backend = make_celery(settings).backend
    assert isinstance(backend, LedgerBackend)
    assert settings.ledger_url == "redis://127.0.0.1:2/3"
    assert settings.ledger_url == backend.url  # type: ignore[attr-defined]  # celery-types leaves it out


def test_celerys_report_says_what_the_backend_is() -> None:
    """`celery report` shows where results are and hides the password; by itself Celery says that they are disabled."""
    settings = BrokerSettings(
        broker_url="redis://user:secret@127.0.0.1:1/0", ledger_url="redis://user:secret@127.0.0.1:2/3"
    )
    report = make_celery(settings).bugreport()
    assert "results:redis://user:**@127.0.0.1:2/3 (shared.ledger.backend:LedgerBackend)" in report
    assert "secret" not in report


@pytest.mark.parametrize(
    ("backend", "url"),
    [
        ("db+postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("db+postgresql+psycopg2://h/d", "postgresql+psycopg2://h/d"),
        ("db+mysql://h/d", "mysql+pymysql://h/d"),
        ("db+mariadb://h/d", "mariadb+pymysql://h/d"),
        ("db+sqlite:////x/results.db", "sqlite:////x/results.db"),
        ("redis://h/0", ""),
        ("", ""),
    ],
)
def test_a_database_as_result_backend_has_the_driver_that_is_installed(backend: str, url: str) -> None:
    """The ledger is another server then; without a name of its own it is the broker."""
    settings = BrokerSettings(broker_url="redis://h/0", result_backend=backend)
    assert (settings.database_url, settings.ledger_url) == (url, "redis://h/0")


def test_the_ledger_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wins over Celery's, which may name the result database."""
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://h//")
    monkeypatch.setenv("CELERIAC_LEDGER_URL", "redis://ledger/1")
    for backend in ("db+sqlite:///x.db", "redis://another/2", ""):
        monkeypatch.setenv("CELERY_RESULT_BACKEND", backend)
        assert BrokerSettings().ledger_url == "redis://ledger/1"


@pytest.mark.parametrize(
    "backend", ["mongodb://u:secret@h/d", "rpc://", "db+oracle://u:secret@h/d", "cache+memcached://h", "results.db"]
)
def test_other_result_backends_are_refused_with_those_that_there_are(backend: str) -> None:
    """The error names the variable as people set it, and no password."""
    with pytest.raises(ValidationError) as refused:
        BrokerSettings(broker_url="redis://h/0", result_backend=backend)
    assert "CELERY_RESULT_BACKEND" in str(refused.value)
    assert "db+postgresql://" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_database_needs_a_ledger_beside_it() -> None:
    with pytest.raises(ValidationError, match="CELERIAC_LEDGER_URL"):
        BrokerSettings(broker_url="amqp://h//", result_backend="db+sqlite:///x.db")


def test_the_report_of_celery_names_the_result_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its password."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://h/7")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "db+postgresql://u:secret@h/d")
    report = make_celery(BrokerSettings()).bugreport()
    assert "results:db+postgresql://u:********@h/d" in report
    assert "secret" not in report
