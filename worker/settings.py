"""What an operator may set for workers: environment variables with the prefix ``CELERIAC_``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.addresses import AllowedHosts

_MIB = 1024**2
_GIB = 1024**3


class WorkerSettings(BaseSettings):
    """Limits and places of one worker process."""

    model_config = SettingsConfigDict(env_prefix="CELERIAC_", frozen=True, extra="ignore")

    memory_limit_bytes: int = Field(
        default=512 * _MIB, ge=32 * _MIB, description="DuckDB's memory limit per task; beyond it, it spills."
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads of DuckDB per task.")
    http_allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Internal hosts that sources may name: names, addresses or CIDRs, each with an optional "
        "`:port`, separated by commas. Public addresses need no entry.",
        examples=["files.internal,10.2.0.0/16,127.0.0.1:8080"],
    )
    http_max_bytes: int = Field(default=16 * _GIB, gt=0, description="Largest download, as transferred.")
    http_timeout_s: float = Field(default=3_300, gt=0, description="Longest download as a whole, in seconds.")
    http_idle_timeout_s: float = Field(default=30, gt=0, description="Longest silence of a server, in seconds.")
    http_max_redirects: int = Field(default=5, ge=0, le=20, description="Redirects that are followed.")
    plain_max_bytes: int = Field(
        default=64 * _GIB, gt=0, description="Largest source after decompression; more is taken for a bomb."
    )
    breaker_fail_max: int = Field(
        default=5, ge=1, description="Transient failures in a row that open a host's or connection's circuit."
    )
    breaker_reset_s: float = Field(default=60, gt=0, description="How long an open circuit refuses, in seconds.")
    connections_file: Path | None = Field(
        default=None, description="TOML file that names the connections; see examples/connections.toml."
    )

    @field_validator("http_allow_hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("http_allow_hosts")
    @classmethod
    def _understood(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowedHosts.of(value)
        return value


@lru_cache
def worker_settings() -> WorkerSettings:
    """Return the settings of this process, read once."""
    return WorkerSettings()
