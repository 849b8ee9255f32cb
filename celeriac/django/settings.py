"""What the project's settings say of the service. Each has the name of the variable that gateway and workers read."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from celeriac.client import DEFAULT_URL, Client, Retries


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a project; `settings_of_project` reads them."""

    url: str  # CELERIAC_URL: of the gateway
    callback_url: str  # CELERIAC_CALLBACK_URL: where the gateway's workers reach our `urls`; empty without callbacks
    api_key: str  # CELERIAC_API_KEY: with which the gateway knows this site
    webhook_secrets: tuple[str, ...]  # CELERIAC_WEBHOOK_SECRET: one, or while it is rotated several
    idempotency_s: float  # CELERIAC_IDEMPOTENCY_S: how long the gateway remembers keys
    retry_s: float  # CELERIAC_RETRY_S: how long a call is repeated while the gateway does not answer

    def callback_url_of(self, key: uuid.UUID) -> str:
        """Return where the outcome of the job with this key is sent."""
        return f"{self.callback_url.rstrip('/')}/{key}/"

    def client(self) -> Client:
        """Return a client of the gateway, to be closed: a request of the site waits for it, so it retries briefly."""
        retries = Retries(for_s=self.retry_s, connect_for_s=self.retry_s)
        return Client(self.url, api_key=self.api_key or None, retries=retries)


def settings_of_project() -> Settings:
    """Return the settings as they are now: tests override them."""
    return Settings(
        url=_given("CELERIAC_URL", DEFAULT_URL),
        callback_url=_given("CELERIAC_CALLBACK_URL", ""),
        api_key=_given("CELERIAC_API_KEY", ""),
        webhook_secrets=tuple(_given("CELERIAC_WEBHOOK_SECRET", "").split()),
        idempotency_s=_given("CELERIAC_IDEMPOTENCY_S", 86_400),
        retry_s=_given("CELERIAC_RETRY_S", 2),
    )


def _given(name: str, default: Any) -> Any:
    return getattr(settings, name, default)
