"""Copies of a backup that outlive their job: dated files beside each other, of which a number or an age is kept."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from shared.errors import TaskFailure, TransientFailure
from worker.maintenance.backup.files import sha256_in, unreachable, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from shared.jobs.maintenance import KeptCopies
    from worker.reach.connections import StoreConnection

_TIME = "%Y%m%dT%H%M%SZ"


class Pruned(NamedTuple):
    """The copies that were removed, and those that were spared because a job restores them."""

    removed: list[str]
    spared: list[str]


def keep(store: StoreConnection, path: str, file: Path, sha256: str, on_bytes: Callable[[int], None]) -> None:
    """Write a copy of `file` and read it back. Raises `TransientFailure` (``copy_not_exact``) if it differs."""
    with file.open("rb") as content:
        write_file(store, path, content, on_bytes)
    if sha256_in(store, path) != sha256:
        raise TransientFailure(
            "copy_not_exact",
            f"The copy at {store.name}:{path} does not have the bytes of the backup. No older copy was removed.",
            remedy="Check the store; the job is retried.",
        )


def dated(path: str, at: datetime, key: str) -> str:
    """Return the path of the copy of this time; `key` tells copies of the same second apart."""
    stem, ending = _parts(path)
    return f"{stem}.{at.astimezone(UTC):{_TIME}}-{key[:8]}{ending}"


def copies_of(store: StoreConnection, path: str) -> dict[str, datetime]:
    """Return the dated copies of `path` and their times, the newest first."""
    stem, ending = _parts(path)
    folder, _, name = stem.rpartition("/")
    pattern = re.compile(rf"{re.escape(name)}\.(?P<time>[0-9]{{8}}T[0-9]{{6}}Z)-[0-9a-f]{{8}}{re.escape(ending)}")
    try:
        root = store.locate(folder) if folder else store.root
        names = [str(one).rpartition("/")[2] for one in store.fs.ls(root, detail=False)]
    except FileNotFoundError:
        return {}
    except OSError as failure:
        raise unreachable(store, failure) from None
    found = {}
    for one in names:
        if (copy := pattern.fullmatch(one)) is not None:
            at = datetime.strptime(copy["time"], _TIME).replace(tzinfo=UTC)
            found[f"{folder}/{one}" if folder else one] = at
    return dict(sorted(found.items(), reverse=True))


def prune(
    store: StoreConnection,
    path: str,
    kept: KeptCopies,
    *,
    newest: str,
    now: datetime,
    restored: Callable[[Collection[str]], set[str]],
) -> Pruned:
    """Remove the copies beyond the number or the age that is kept, but never `newest`, which has been read back.

    `restored` returns those of some paths that jobs restore or wait to; they are spared.
    """
    others = {copy: at for copy, at in copies_of(store, path).items() if copy != newest}
    many = list(others)[kept.count - 1 :] if kept.count is not None else []
    age = timedelta(seconds=kept.max_age_s) if kept.max_age_s is not None else None
    old = [copy for copy, at in others.items() if age is not None and now - at > age]
    surplus = [copy for copy in others if copy in {*many, *old}]
    spared = restored(surplus) if surplus else set()
    removed = [copy for copy in surplus if copy not in spared]
    try:
        for copy in removed:
            with suppress(FileNotFoundError):  # another job of the same copies removed it
                store.fs.rm_file(store.locate(copy))
    except OSError as failure:
        raise unreachable(store, failure) from None
    return Pruned(removed, sorted(spared))


def fetched(store: StoreConnection, path: str, scratch: Path) -> Path:
    """Return a local path of a copy: the file itself in a local store, else a copy of it in `scratch`.

    Raises `TaskFailure` (``backup_missing``), which names the newest dated copy if there is one.
    """
    full = store.locate(path)
    try:
        if not store.fs.isfile(full):
            newest = next(iter(copies_of(store, path)), None)
            raise TaskFailure(
                "backup_missing",
                f"backup: the store {store.name!r} has no file {path!r}.",
                remedy=f"Use its newest copy, {newest!r}." if newest else "Correct the path, relative to the root.",
            )
        target = scratch / "kept.zip"
        store.fs.get_file(full, str(target))
    except OSError as failure:
        raise unreachable(store, failure) from None
    return target


def _parts(path: str) -> tuple[str, str]:
    folder, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    return f"{folder}{slash}{stem or name}", f"{dot}{ending}" if stem else ""
