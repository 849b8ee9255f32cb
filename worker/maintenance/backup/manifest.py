"""What a backup says of itself: its files with their checksums, and its tables with their definitions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.contract.artifacts import Column
from shared.contract.names import TableName
from worker.tables.databases.definitions import Definition

TABLE = "table.parquet"
MAX_FILES = 100_000
MAX_TABLES = 1_000
_MODEL = ConfigDict(extra="forbid", frozen=True)


def stays_inside(path: str) -> str:
    """Return a path that leads nowhere else. Raises `ValueError`."""
    if not path.isprintable() or "\\" in path or any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError("a path must be relative and printable, without '.', '..' or empty parts")
    return path


MemberPath = Annotated[str, StringConstraints(max_length=1_000), AfterValidator(stays_inside)]


class Member(BaseModel):
    """A file of a backup."""

    model_config = _MODEL

    path: MemberPath
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class TableContent(BaseModel):
    """A table of a backup: the file of its rows, and what else it is."""

    model_config = _MODEL

    name: TableName
    path: MemberPath
    row_count: int = Field(ge=0)
    digest: str = Field(max_length=100)
    columns: list[Column] = Field(max_length=2_000)
    times: list[str] = Field(default=[], max_length=2_000)
    """Columns of texts that are dates or times for other engines."""
    definition: Definition | None = None


class Manifest(BaseModel):
    """The contents of a backup, written last and read first.

    Version 1 had one table without its definition. `tables` has those that others have foreign keys to before these.
    """

    model_config = _MODEL

    format: Literal["celeriac-backup"] = "celeriac-backup"
    version: Literal[1, 2] = 2
    kind: Literal["table", "store"]
    source: str = Field(max_length=100_000)
    created_at: str = Field(max_length=40)
    digest: str = Field(max_length=100)
    tables: list[TableContent] = Field(default=[], max_length=MAX_TABLES)
    left_out: list[str] = Field(default=[], max_length=10_000)
    """What of the tables is not in the backup, for people."""
    files: list[Member] = Field(max_length=MAX_FILES)

    @model_validator(mode="before")
    @classmethod
    def _as_now(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("version") != 1:
            return given
        now = {name: value for name, value in given.items() if name not in {"row_count", "columns", "tables"}}
        if now.get("kind") != "table":
            return {**now, "version": 1}
        name = str(now.get("source")).rpartition(":")[2]
        facts = {one: given.get(one) for one in ("digest", "row_count", "columns")}
        return {**now, "version": 1, "tables": [{"name": name, "path": TABLE, **facts}]}

    @model_validator(mode="after")
    def _agrees(self) -> Manifest:
        paths = [member.path for member in self.files]
        if len(set(paths)) < len(paths):
            raise ValueError("a path is listed twice")
        if self.kind == "table" and (not self.tables or paths != [table.path for table in self.tables]):
            raise ValueError("a backup of tables must have one file for each")
        if self.kind == "store" and self.tables:
            raise ValueError("a backup of a store has no tables")
        if len({table.name.lower() for table in self.tables}) < len(self.tables):
            raise ValueError("a table is listed twice")
        return self

    @property
    def row_count(self) -> int | None:
        """The rows of all tables; None for a store."""
        return sum(table.row_count for table in self.tables) if self.kind == "table" else None

    @property
    def content_bytes(self) -> int:
        """Total size of the files in bytes."""
        return sum(member.size_bytes for member in self.files)
