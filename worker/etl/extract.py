"""Stage any source as one Parquet file: fetch it, read it, infer its types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from shared.errors import TaskFailure
from shared.jobs.data.places import ArtifactSource, HttpSource, SqlSource, StoreSource
from worker.etl.reading.readers import ReadLimits, SourceFile, read_file
from worker.reach.addresses import AllowedHosts
from worker.reach.breaker import Breaker
from worker.reach.fetch import FetchLimits, fetch
from worker.tables.databases.registry import database
from worker.tables.inference import settle
from worker.tables.parquet.staging import columns_of, missing_in
from worker.tables.read import stage_sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import redis

    from shared.contract.artifacts import Column
    from shared.jobs.data.places import Source
    from shared.storage import ArtifactStore
    from worker.etl.reading.delimited import BadRow
    from worker.reach.connections import StoreConnection, WorkerConnections
    from worker.settings import WorkerSettings

T = TypeVar("T")
_CHUNK_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was staged: rows, columns, bytes read before decompression (0 for SQL), and the source."""

    row_count: int
    columns: list[Column]
    read_bytes: int
    source: str
    missing: dict[str, int] = field(default_factory=dict)
    bad_rows: list[BadRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Extractor:
    """The resources of one extraction.

    `on_progress` takes the amount so far, the total if known, and the unit (``bytes`` or ``rows``).
    """

    settings: WorkerSettings
    connections: WorkerConnections
    store: ArtifactStore
    redis_client: redis.Redis
    scratch: Path
    on_progress: Callable[[int, int | None, str], None]

    def extract(self, source: Source, output: Path) -> Extracted:
        """Write the rows of `source` to the new Parquet file `output`.

        Raises `TransientFailure` for transient failures and `TaskFailure` for permanent ones, each with a remedy.
        """
        match source:
            case HttpSource():
                return self._from_http(source, output)
            case ArtifactSource():
                return self._from_artifact(source, output)
            case StoreSource():
                return self._from_store(source, output)
            case SqlSource():
                return self._from_sql(source, output)

    def _from_http(self, source: HttpSource, output: Path) -> Extracted:
        parts = urlsplit(source.url)
        connection = self.connections.http(source.connection) if source.connection else None
        if connection is not None and not connection.covers(source.url):
            raise TaskFailure(
                "connection_mismatch",
                f"source.url: the connection {connection.name!r} is for {connection.origin}, not for this URL.",
                remedy="Use a URL of that server, or omit 'connection'.",
            )
        settings, target = self.settings, self.scratch / "download"
        limits = FetchLimits(
            max_bytes=settings.http_max_bytes,
            timeout_s=settings.http_timeout_s,
            idle_timeout_s=settings.http_idle_timeout_s,
            max_redirects=settings.http_max_redirects,
        )
        fetched = self._guarded(
            f"{parts.scheme}://{parts.netloc.lower()}",
            lambda: fetch(
                source.url,
                target,
                allowed=AllowedHosts.of(settings.http_allow_hosts),
                limits=limits,
                headers_for=connection.headers_for if connection else lambda _: {},
                on_progress=lambda current, total: self.on_progress(current, total, "bytes"),
            ),
        )
        file = SourceFile(target, fetched.file_name, fetched.media_type)
        where = f"{parts.scheme}://{parts.netloc}{parts.path}"
        return self._read(file, source, output, where)

    def _from_artifact(self, source: ArtifactSource, output: Path) -> Extracted:
        with self.store.local_copy(source.uri, self.scratch) as path:
            return self._read(SourceFile(path, source.uri.rsplit("/", 1)[1]), source, output, source.uri)

    def _from_store(self, source: StoreSource, output: Path) -> Extracted:
        store = self.connections.store(source.connection)
        local = self._guarded(f"connection:{store.name}", lambda: self._local_copy(store, source.path))
        where = f"{store.name}:{source.path}"
        return self._read(SourceFile(local, source.path.rsplit("/", 1)[-1]), source, output, where)

    def _local_copy(self, store: StoreConnection, path: str) -> Path:
        """Copy a store's file into the scratch folder, so that it cannot change while it is read."""
        full, target = store.locate(path), self.scratch / "download"
        try:
            total = int(store.fs.size(full) or 0)
            with store.fs.open(full, "rb") as remote, target.open("xb") as local:
                while chunk := remote.read(_CHUNK_BYTES):
                    local.write(chunk)
                    self.on_progress(local.tell(), total, "bytes")
        except (FileNotFoundError, IsADirectoryError, PermissionError) as missing:
            raise TaskFailure(
                "source_missing",
                f"source.path: the store {store.name!r} has no readable file {path!r} ({type(missing).__name__}).",
                remedy="Correct the path; it is relative to the store's root.",
            ) from None
        return target

    def _read(
        self, file: SourceFile, source: HttpSource | ArtifactSource | StoreSource, output: Path, where: str
    ) -> Extracted:
        read_bytes = file.path.stat().st_size
        table = read_file(
            file,
            source.layout,
            output=output,
            scratch=self.scratch,
            limits=ReadLimits(
                memory_limit_bytes=self.settings.memory_limit_bytes,
                plain_max_bytes=self.settings.plain_max_bytes,
                threads=self.settings.threads,
            ),
            on_progress=self.on_progress,
        )
        return Extracted(
            table.row_count,
            columns_of(output),
            read_bytes,
            where,
            missing_in(output),
            table.bad_rows,
            table.warnings,
        )

    def _from_sql(self, source: SqlSource, output: Path) -> Extracted:
        source_database = database(self.connections, source.connection)
        staged = self.scratch / "staged.parquet"
        rows = 0

        def on_rows(count: int) -> None:
            nonlocal rows
            rows = count
            self.on_progress(count, None, "rows")

        candidates = self._guarded(
            f"connection:{source.connection}",
            lambda: stage_sql(
                source_database, source, staged, memory_limit_bytes=self.settings.memory_limit_bytes, on_rows=on_rows
            ),
        )
        if candidates:
            settle(staged, output, candidates, lambda _: self.on_progress(rows, None, "rows"))
        else:
            staged.rename(output)
        where = f"{source.connection}:{source.table or 'query'}"
        return Extracted(rows, columns_of(output), 0, where, missing_in(output))

    def _guarded(self, name: str, attempt: Callable[[], T]) -> T:
        breaker = Breaker(
            name,
            self.redis_client,
            fail_max=self.settings.breaker_fail_max,
            reset_s=self.settings.breaker_reset_s,
        )
        return breaker.call(attempt)
