"""The settings of workers: environment variables with the prefix ``CELERIAC_``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from shared.connections.callbacks import CallbackSettings
from shared.contract.options import MAX_RUNNING_PER_KEY
from shared.environment import read

_MIB = 1024**2
_GIB = 1024**3


class WorkerSettings(CallbackSettings):
    """Limits and paths of one worker process."""

    model_config = SettingsConfigDict(env_prefix="CELERIAC_", frozen=True, extra="ignore")

    memory_limit_bytes: int = Field(
        default=512 * _MIB,
        ge=32 * _MIB,
        description="Memory limit per task: DuckDB spills beyond it, and training on too many rows is refused.",
    )
    threads: int = Field(
        default=1, ge=1, le=256, description="Threads per task for reading CSV, DuckDB and scikit-learn."
    )
    http_max_bytes: int = Field(default=16 * _GIB, gt=0, description="Largest download, as transferred.")
    http_timeout_s: float = Field(default=3_300, gt=0, description="Maximum duration of a download, in seconds.")
    http_idle_timeout_s: float = Field(default=30, gt=0, description="Maximum time without received data, in seconds.")
    http_max_redirects: int = Field(default=5, ge=0, le=20, description="Maximum number of redirects to follow.")
    plain_max_bytes: int = Field(
        default=64 * _GIB,
        gt=0,
        description="Largest source after decompression, in bytes; protects against decompression bombs.",
    )
    breaker_fail_max: int = Field(
        default=5, ge=1, description="Consecutive transient failures that open the circuit of a host or connection."
    )
    breaker_reset_s: float = Field(default=60, gt=0, description="Seconds for which an open circuit refuses calls.")
    callbacks_per_host: int = Field(
        default=2,
        ge=1,
        le=MAX_RUNNING_PER_KEY,
        description="Callbacks that are sent at once to one host and port; have more processes for callbacks.",
    )
    stalled_after_s: float = Field(
        default=60,
        ge=5,
        description="How long a worker's main loop may stand before the process ends itself, for its supervisor to "
        "start another; in seconds.",
    )
    unknown_kind_s: float = Field(
        default=600,
        ge=0,
        description="Seconds for which a job of a kind that this worker does not have, or has in another version, is "
        "left to another worker; then it fails.",
    )
    connections_file: Path | None = Field(
        default=None, description="TOML file that names the connections; see examples/connections.toml."
    )


@lru_cache
def worker_settings() -> WorkerSettings:
    """Return the settings of this process, read once."""
    return read(WorkerSettings)
