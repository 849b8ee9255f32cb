"""The settings of the gateway: environment variables with the prefix ``CELERIAC_``."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from shared.broker.settings import BrokerSettings
from shared.connections.callbacks import CallbackSettings
from shared.environment import read
from shared.errors import DefinitionError

_MIB = 1024**2
_GIB = 1024**3


class GatewaySettings(BrokerSettings, CallbackSettings):
    """Limits of one gateway process, and its broker, ledger and store."""

    host: str = Field(default="127.0.0.1", description="The address that the launcher binds.")
    allow_unauthenticated: bool = Field(
        default=False,
        description="Serve without authentication on an address other than loopback.",
    )
    max_body_bytes: int = Field(default=1 * _MIB, gt=0, description="Largest JSON body.")
    max_upload_bytes: int = Field(default=1 * _GIB, gt=0, description="Largest upload in bytes.")
    idempotency_s: float = Field(
        default=86_400, gt=0, description="Seconds for which an Idempotency-Key is remembered."
    )
    ledger_timeout_s: float = Field(
        default=2.0, gt=0, description="Seconds after which a call to the ledger times out and the client gets 503."
    )
    task_events: bool = Field(
        default=True,
        description="Take part in electing the single consumer of Celery's events; SQS has no events.",
    )
    connections_file: Path | None = Field(
        default=None, description="TOML file that names the connections; see examples/connections.toml."
    )

    def refuse_open_door(self) -> None:
        """Raise `DefinitionError` if there is neither authentication nor a loopback address."""
        if self.allow_unauthenticated or _is_loopback(self.host):
            return
        raise DefinitionError(
            f"The gateway would listen on {self.host} without authentication. "
            "Bind 127.0.0.1, or set CELERIAC_ALLOW_UNAUTHENTICATED=true behind a proxy that authenticates."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache
def gateway_settings() -> GatewaySettings:
    """Return the settings of this process, read once."""
    return read(GatewaySettings)
