"""What an operator may set for the gateway: environment variables with the prefix ``CELERIAC_``."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from pathlib import Path

from pydantic import Field

from shared.broker.settings import BrokerSettings
from shared.connections.callbacks import CallbackSettings
from shared.errors import DefinitionError

_MIB = 1024**2
_GIB = 1024**3


class GatewaySettings(BrokerSettings, CallbackSettings):
    """Limits and places of one gateway process, and where its broker, ledger and store are."""

    host: str = Field(default="127.0.0.1", description="The address that the launcher binds.")
    allow_unauthenticated: bool = Field(
        default=False,
        description="Serve on an address other than loopback although nobody is asked for a key.",
    )
    max_body_bytes: int = Field(default=1 * _MIB, gt=0, description="Largest JSON body.")
    max_upload_bytes: int = Field(default=1 * _GIB, gt=0, description="Largest upload.")
    idempotency_s: float = Field(default=86_400, gt=0, description="How long an Idempotency-Key is remembered.")
    ledger_timeout_s: float = Field(
        default=2.0, gt=0, description="When the ledger is given up and the client told 503, in seconds."
    )
    task_events: bool = Field(
        default=True,
        description="Stand for election as the one consumer of Celery's events; brokers such as SQS have none.",
    )
    connections_file: Path | None = Field(
        default=None, description="TOML file that names the connections; see examples/connections.toml."
    )

    def refuse_open_door(self) -> None:
        """Raise `DefinitionError` where strangers could submit jobs: no authentication, no loopback address."""
        if self.allow_unauthenticated or _is_loopback(self.host):
            return
        raise DefinitionError(
            f"The gateway is to listen on {self.host}, where others can reach it, and asks nobody for a key. "
            "Bind 127.0.0.1, or set CELERIAC_ALLOW_UNAUTHENTICATED=true behind something that authenticates."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@lru_cache
def gateway_settings() -> GatewaySettings:
    """Return the settings of this process, read once."""
    return GatewaySettings()
