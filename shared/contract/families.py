"""The register of families: which kinds have workers of their own, and what those workers need.

A family NAME is a line here, and under the same name a queue, its tasks in worker/NAME, its packages as an extra in
pyproject.toml, requirements/worker-NAME.txt, a stage for-NAME in Dockerfile.worker, the image celeriac-worker-NAME and
the service worker-celery-NAME in docker-compose.yml. tests/test_families.py says what of these is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Family:
    """One family. Only this module makes them."""

    name: str
    tables: tuple[str, ...] = ()  # what its tasks use of worker/tables; "." is all of it
    pages: bool = False  # whether they write documents for people, with worker/pages
    also_runs: tuple[str, ...] = ()  # families that once used this one's queue, where messages of them may still wait

    @property
    def extras(self) -> tuple[str, ...]:
        """The extras of pyproject.toml that its workers are installed with."""
        return ("worker", self.name, *self.also_runs)

    @property
    def folders(self) -> tuple[str, ...]:
        """What its image has of the tree beside what every worker has."""
        tables = PurePosixPath("worker/tables")
        own = (f"worker/{name}" for name in (self.name, *self.also_runs))
        return (*own, *(str(tables / part) for part in self.tables), *(["worker/pages"] if self.pages else []))


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("etl", tables=(".",)),
        Family("ml", tables=("parquet",), pages=True),
        Family("report", tables=("parquet", "duck"), pages=True),
        Family("maintenance", tables=(".",), also_runs=("callbacks",)),
        Family("callbacks"),
    )
}


def with_those_also_run(names: Iterable[str]) -> list[str]:
    """Return these families and those whose messages may wait in their queues, each once."""
    named = list(names)
    also = (other for name in named if name in FAMILIES for other in FAMILIES[name].also_runs)
    return list(dict.fromkeys((*named, *also)))
