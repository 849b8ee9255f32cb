"""Artifacts: stored files that travel between tasks by reference, never by value."""

from __future__ import annotations

import hashlib
import re
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, core_schema

from shared.contract.names import Matching
from shared.contract.spelling import did_you_mean
from shared.errors import DefinitionError

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"  # of a file: safe as a part of a path and of a URL
FILE_OWNER_PATTERN = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ARTIFACT_URI_PATTERN = rf"^artifact://{FILE_OWNER_PATTERN}/[0-9]{{1,9}}/{NAME_PATTERN}$"

BuiltInRole = Literal["dataset", "rejects", "model", "recipe", "report", "search", "trial", "backup", "file"]
OwnRoleName = Annotated[
    str,
    Matching(r"[a-z][a-z0-9]*\.[a-z][a-z0-9_]{0,62}", "of the form family.noun in lower case, like 'acme.picture'"),
    Field(max_length=128, examples=["acme.picture"]),
]
RoleName = BuiltInRole | OwnRoleName


@dataclass(frozen=True, slots=True)
class OwnRole:
    """A role of files that is not one of the service's own; `role` makes it.

    As a mark on a field of a result, it says that the files in that field have it.
    """

    name: str

    def __str__(self) -> str:
        return self.name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: Any) -> Any:
        for file in value if isinstance(value, list) else [value]:
            if isinstance(file, Artifact) and file.role != self.name:
                raise ValueError(
                    f"the file {file.name} has the role {file.role!r}, and this field takes {self.name!r}: publish it "
                    "with this role"
                )
        return value


Role = BuiltInRole | OwnRole
DatasetRole = Literal["dataset", "rejects"] | OwnRole


def role_name(given: Role) -> str:
    """Return the name of a role. Raises `ValueError` with what to do for one that does not exist."""
    if isinstance(given, OwnRole):
        return given.name
    if given not in (known := typing.get_args(BuiltInRole)):
        hint = f" A role of your own is what role({str(given)!r}) returns, not its name."
        own = hint if "." in str(given) else ""
        raise ValueError(f"the role {given!r} does not exist. {did_you_mean(str(given), known)}{own}")
    return given


def role(name: str) -> OwnRole:
    """Return a role of your own for the files of your kinds.

        Picture = role("acme.picture")

    A task publishes with it, `run.publish(path, role=Picture)`; a result has it, `Annotated[Artifact, Picture]`; a
    parameter wants it, `FedFromUpstream(Picture)`. Workflows are checked for it. Raises `DefinitionError`.
    """
    try:
        return OwnRole(TypeAdapter(OwnRoleName).validate_python(name))
    except ValidationError as invalid:
        what = invalid.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise DefinitionError(f"role({name!r}): {what}.") from None


ArtifactUri = Annotated[
    str,
    Field(
        pattern=ARTIFACT_URI_PATTERN,
        max_length=256,
        examples=["artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"],
    ),
]


def file_owner_of(job_id: str) -> str:
    """Return the owner of the files of a job: its id, or a UUID made of an id that is not one.

    Other Celery clients choose ids freely, `../../x` among them, and an owner is a part of a path.
    """
    if re.fullmatch(FILE_OWNER_PATTERN, job_id):
        return job_id
    return str(UUID(bytes=hashlib.sha256(job_id.encode()).digest()[:16], version=5))


class Artifact(BaseModel):
    """A stored file, by reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: ArtifactUri = Field(description="Address of the file: `artifact://<job or upload id>/<attempt>/<name>`.")
    name: str = Field(description="File name, unique within the job.", examples=["data.parquet"])
    role: RoleName = Field(description="Role of the file; a parameter fed from upstream takes files of one role.")
    media_type: str = Field(description="RFC 6838 media type.", examples=["application/vnd.apache.parquet", "text/csv"])
    size_bytes: int = Field(ge=0, description="Size of the file in bytes.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the content, lower-case hex.")


class ModelFile(Artifact):
    """A trained model: a skops file."""

    role: Literal["model"] = Field(description="Always `model`.")


class RecipeFile(Artifact):
    """A recipe that makes features from columns: a skops file."""

    role: Literal["recipe"] = Field(description="Always `recipe`.")


class ReportFile(Artifact):
    """A page, workbook or document for people."""

    role: Literal["report"] = Field(description="Always `report`.")


class SearchFile(Artifact):
    """The outcomes of a search for hyperparameters and its next trials: JSON."""

    role: Literal["search"] = Field(description="Always `search`.")


class TrialFile(Artifact):
    """The outcome of one trial of a search: JSON."""

    role: Literal["trial"] = Field(description="Always `trial`.")


class BackupFile(Artifact):
    """A table or store that can be restored."""

    role: Literal["backup"] = Field(description="Always `backup`.")


class Column(BaseModel):
    """A column of a dataset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Column name.", examples=["category"])
    type: str = Field(description="Arrow type name.", examples=["int64", "string", "timestamp[us]"])


class Dataset(Artifact):
    """A staged table: one Parquet file."""

    role: Literal["dataset", "rejects"] | OwnRoleName = Field(
        default="dataset", description="`dataset` (default), `rejects` for rejected rows, or a role of a team's own."
    )
    row_count: int = Field(ge=0, description="Rows in the file.")
    columns: list[Column] = Field(description="Columns in file order.")
