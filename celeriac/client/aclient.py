"""`AsyncClient`; `client.py` is made of this module."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pydantic import BaseModel

from celeriac.client.answers import (
    Cancellation,
    Event,
    Job,
    JobArtifact,
    JobRef,
    JobSummary,
    LogLine,
    Submitted,
    Validated,
)
from celeriac.client.aschedules import AsyncSchedules
from celeriac.client.plans import files, following
from celeriac.client.plans import jobs as plans
from celeriac.client.plans.files import Progress
from celeriac.client.wire import Answer

if TYPE_CHECKING:
    from celeriac.client.plans.jobs import AnyJob
    from shared.contract.artifacts import Artifact
    from shared.contract.definition import Contract

ResultT = TypeVar("ResultT")
ModelT = TypeVar("ModelT", bound=BaseModel)


class AsyncClient(AsyncSchedules):
    """A client of one gateway.

    A job is submitted as an instance of its contract, and its result is typed then; or as a kind with a dict of
    parameters. Later calls name it by its id or by what an earlier call returned. Each call may raise `Unreachable` or
    `Refused`, after the retries that `retries` allows.
    """

    @overload
    async def submit(
        self, job: Contract[ModelT], *, idempotency_key: str | None = None, **options: Any
    ) -> Submitted[ModelT]: ...
    @overload
    async def submit(
        self, job: str, params: Mapping[str, Any] | None = None, *, idempotency_key: str | None = None, **options: Any
    ) -> Submitted[dict[str, Any]]: ...
    async def submit(
        self,
        job: AnyJob,
        params: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Submitted[Any]:
        """Submit a job with the options of `POST /jobs`, such as priority, tags or run_at.

        Without an Idempotency-Key the call has one of its own, so that its retries submit one job. Give one to make the
        repetition of the call itself safe.
        """
        return await self._run(plans.submit(self.gateway, job, params, idempotency_key, options))

    @overload
    async def submit_many(
        self, jobs: Iterable[Contract[ModelT]], *, idempotency_key: str | None = None, **options: Any
    ) -> Sequence[Submitted[ModelT]]: ...
    @overload
    async def submit_many(
        self,
        jobs: Iterable[Contract[Any] | Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Sequence[Submitted[Any]]: ...
    async def submit_many(
        self,
        jobs: Iterable[Contract[Any] | Mapping[str, Any]],
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Sequence[Submitted[Any]]:
        """Submit jobs, in batches as large as the gateway takes; a batch is accepted all or none.

        A job is a contract's instance, or a mapping with kind, params and options. `options` are those of all jobs.
        If one fails, `accepted` of the exception has the jobs of those before; pointers have the index among all jobs.
        """
        return await self._run(plans.submit_many(self.gateway, jobs, idempotency_key, options))

    async def validate(self, job: AnyJob, params: Mapping[str, Any] | None = None, **options: Any) -> Validated:
        """Return what a submission would become, without accepting it. Raises `Refused` as `submit` does."""
        return await self._run(plans.validate(self.gateway, job, params, options))

    @overload
    async def get(self, job: JobRef[ResultT], *, wait_s: float | None = None) -> Job[ResultT]: ...
    @overload
    async def get(self, job: str, of: type[Contract[ModelT]], *, wait_s: float | None = None) -> Job[ModelT]: ...
    @overload
    async def get(self, job: str, *, wait_s: float | None = None) -> Job[dict[str, Any]]: ...
    async def get(
        self, job: JobRef[Any] | str, of: type[Contract[Any]] | None = None, *, wait_s: float | None = None
    ) -> Job[Any]:
        """Return a job as it is now, or with `wait_s` (at most 60) when it has ended or that time is over.

        `of` is the contract of a job that is named by its id.
        """
        return await self._run(plans.get(self.gateway, job, _result_type(job, of), wait_s))

    @overload
    async def wait(
        self, job: JobRef[ResultT], *, timeout_s: float | None = None, raise_on_failure: bool = True
    ) -> Job[ResultT]: ...
    @overload
    async def wait(
        self,
        job: str,
        of: type[Contract[ModelT]],
        *,
        timeout_s: float | None = None,
        raise_on_failure: bool = True,
    ) -> Job[ModelT]: ...
    @overload
    async def wait(
        self, job: str, *, timeout_s: float | None = None, raise_on_failure: bool = True
    ) -> Job[dict[str, Any]]: ...
    async def wait(
        self,
        job: JobRef[Any] | str,
        of: type[Contract[Any]] | None = None,
        *,
        timeout_s: float | None = None,
        raise_on_failure: bool = True,
    ) -> Job[Any]:
        """Return a job when it has ended. Raises `JobFailed` if it did not succeed, `NotEnded` after `timeout_s`."""
        return await self._run(
            following.wait(
                self.gateway, job, _result_type(job, of), timeout_s=timeout_s, raise_on_failure=raise_on_failure
            )
        )

    def list(self, **criteria: Any) -> AsyncGenerator[JobSummary, None]:
        """Yield jobs, newest first, by the criteria of `GET /jobs`: state, kind, queue, tag, created_after, ...

        Jobs whose records cannot be read are left out; `call("GET", "/jobs")` has them in `damaged`.
        """
        return self._items(plans.listed(self.gateway, criteria))

    def stream(self, job: JobRef[Any] | str, *, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Yield the events of a job to its end, from its first or behind the event with the id `after`.

        If the connection is cut, it goes on behind the last event that came.
        """
        return self._items(following.stream(self.gateway, job, after))

    def logs(
        self, job: JobRef[Any] | str, *, step: str | None = None, follow: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        """Yield the lines of a job's log so far; with `follow`, until it ends."""
        return self._items(following.logs(self.gateway, job, step=step, follow=follow))

    async def cancel(self, job: JobRef[Any] | str, *, wait_s: float | None = None) -> Cancellation:
        """Cancel a job; if it runs, wait up to `wait_s` (at most 60) for its worker to stop it."""
        return await self._run(plans.cancel(self.gateway, job, wait_s))

    @overload
    async def rerun(
        self, job: JobRef[ResultT], *, idempotency_key: str | None = None, **changes: Any
    ) -> Submitted[ResultT]: ...
    @overload
    async def rerun(
        self, job: str, *, idempotency_key: str | None = None, **changes: Any
    ) -> Submitted[dict[str, Any]]: ...
    async def rerun(
        self, job: JobRef[Any] | str, *, idempotency_key: str | None = None, **changes: Any
    ) -> Submitted[Any]:
        """Run an unsuccessful job again as a new one; `changes` are params, options or only_failed."""
        return await self._run(plans.rerun(self.gateway, job, _result_type(job, None), idempotency_key, changes))

    async def delete(self, job: JobRef[Any] | str) -> None:
        """Delete an ended job with its result, its log and its files."""
        await self._run(plans.delete(self.gateway, plans.path_of(job)))

    async def upload(
        self,
        source: Path | str | bytes,
        *,
        name: str | None = None,
        media_type: str | None = None,
        progress: Progress | None = None,
    ) -> Artifact:
        """Upload a file, and return its reference: `.uri` is what a job names it by.

        A `str` is a path. `progress(bytes so far, bytes in all)` is called after each part.
        """
        return await self._run(files.upload(self.gateway, source, name, media_type, progress))

    async def artifacts(self, job: JobRef[Any] | str) -> Sequence[JobArtifact]:
        """Return the files of a job and of its steps."""
        return await self._run(files.artifacts(self.gateway, job))

    async def download(
        self,
        job: JobRef[Any] | str,
        name: str,
        to: Path | str = ".",
        *,
        step: str | None = None,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> Path:
        """Fetch a file of a job to a path or into a folder, verify its SHA-256, and return where it is.

        What came before a cut is kept in a file `.NAME.*.part` beside it, where this or a later call goes on. Raises
        `WrongChecksum`, and `FileExistsError` for what may not be overwritten.
        """
        return await self._run(
            files.download(self.gateway, job, name, to, step=step, overwrite=overwrite, progress=progress)
        )

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Answer:
        """Make any other call of the HTTP interface, and return its answer; `path` is percent-encoded."""
        return await self._run(plans.call(self.gateway, method, path, body, query))


def _result_type(job: JobRef[Any] | str, of: type[Contract[Any]] | None) -> type[BaseModel] | None:
    if of is not None:
        return of.spec.result
    return None if isinstance(job, str) else job.result_type
