"""The settings of the gateway: environment variables with the prefix ``CELERIAC_``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from shared.broker.settings import BrokerSettings
from shared.connections.callbacks import CallbackSettings
from shared.environment import ByCommas, read

_MIB = 1024**2
_GIB = 1024**3


class GatewaySettings(BrokerSettings, CallbackSettings):
    """Limits of one gateway process, and its broker, ledger and store."""

    allow_unauthenticated: bool = Field(
        default=False,
        description="Ask nobody for a key, on any address: for a gateway behind a proxy that asks.",
    )
    host_names: ByCommas = Field(
        default=("localhost", "127.0.0.1", "::1"),
        description="Names that the header `Host` may have, separated by commas, without ports; `*` allows all. The "
        "address that a request comes to is always allowed.",
    )
    cors_origins: ByCommas = Field(
        default=(),
        description="Origins of other pages whose scripts may call the gateway, separated by commas, such as "
        "`https://app.example.com`.",
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

    @field_validator("host_names")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(one.removeprefix("[").removesuffix("]") for one in value)
        if wrong := [name for name in names if "/" in name or name.count(":") == 1]:
            raise ValueError(f"{wrong[0]!r} is not a name: leave out scheme, port and path, as in 'jobs.example.com'")
        return names

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if parts.scheme not in {"http", "https"} or f"{parts.scheme}://{parts.netloc}" != origin:
                raise ValueError(
                    f"{origin!r} is not an origin: give scheme, host and port, as in 'https://example.com'"
                )
        return value


@lru_cache
def gateway_settings() -> GatewaySettings:
    """Return the settings of this process, read once."""
    return read(GatewaySettings)
