"""Check the files that a body publishes, and describe them: media type, rows and columns."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from shared.contract.artifacts import Artifact, Column, Role, role_name
from shared.errors import TaskFailure

PARQUET = "application/vnd.apache.parquet"
_MOST_ARTIFACTS = 1_000
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}(; ?[\w-]+=[\w.-]+)*", re.ASCII)
_BY_SUFFIX = {  # those unknown to the standard library, or different from machine to machine
    ".parquet": PARQUET,
    ".arrow": "application/vnd.apache.arrow.file",
    ".csv": "text/csv",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".md": "text/markdown",
    ".log": "text/plain",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".webp": "image/webp",
}


def media_type_of(name: str) -> str:
    """Return the media type for the suffix of a file's name; `application/octet-stream` if it is unknown."""
    return _BY_SUFFIX.get(Path(name).suffix.lower()) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def refuse_unfit(local: Path, name: str, role: Role, media_type: str, published: Sequence[Artifact]) -> None:
    """Raise `TaskFailure` for a file that cannot be published; `published` are the earlier ones."""
    if any(artifact.name == name for artifact in published):
        raise TaskFailure(
            "artifact_exists",
            f"This run has already published a file named {name}.",
            remedy="Fix the task: give each file a name of its own.",
        )
    if len(published) >= _MOST_ARTIFACTS:
        raise TaskFailure(
            "too_many_artifacts",
            f"This run has published {_MOST_ARTIFACTS} files; it may publish no more.",
            remedy="Fix the task: put the files into a ZIP, and publish that.",
        )
    if not local.is_file():  # a pipe would never end, and a folder has no content
        raise TaskFailure(
            "not_a_file",
            f"{local} is not a file, so it cannot be published.",
            remedy="Fix the task: write the file first; put a folder into a ZIP.",
        )
    try:
        role_name(role)
    except ValueError as unknown:
        raise TaskFailure("unknown_role", f"{unknown}", remedy="Fix the task: publish the file with a role.") from None
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise TaskFailure(
            "invalid_media_type",
            f"{media_type!r} is not a media type.",
            remedy="Fix the task: give a type such as 'text/plain' or 'text/html; charset=utf-8'.",
        )


def described(local: Path) -> tuple[int, list[Column]]:
    """Return the number of rows and the columns of a Parquet file. Raises `TaskFailure` (``not_a_dataset``)."""
    try:
        parquet = import_module("pyarrow.parquet")  # most kinds publish no dataset, and this import is slow
    except ModuleNotFoundError:
        raise TaskFailure(
            "library_missing",
            "A dataset cannot be described on this worker: pyarrow is not installed.",
            remedy="Install pyarrow with the package of the kind, or run it in an image that has it.",
        ) from None
    try:
        metadata = parquet.read_metadata(local)
    except (OSError, ValueError) as failure:
        raise TaskFailure(
            "not_a_dataset",
            f"{local.name} is not a Parquet file: {failure}",
            remedy="Fix the task: write the table as Parquet, for example with DataFrame.to_parquet.",
        ) from None
    schema = metadata.schema.to_arrow_schema()
    return int(metadata.num_rows), [Column(name=column.name, type=str(column.type)) for column in schema]
