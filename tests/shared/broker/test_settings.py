"""The Celery application that everything shares."""

from __future__ import annotations

import pytest

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
