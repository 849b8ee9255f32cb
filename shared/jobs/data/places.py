"""Sources and destinations of data: files and tables, and the layout of files."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.names import (
    ColumnName,
    HttpConnectionName,
    SqlConnectionName,
    StoreConnectionName,
    StorePath,
    TableName,
)
from shared.contract.params import Params
from shared.jobs.data.steps import SqlText
from shared.jobs.data.urls import PublicHttpUrl

FileFormat = Literal["auto", "csv", "tsv", "json", "ndjson", "parquet", "excel"]
Compression = Literal["auto", "none", "gzip", "zstd"]


class FileLayout(Params):
    """Layout of a file."""

    format: FileFormat = Field(
        default="auto", description="File format; `auto` detects it from name, media type and first bytes."
    )
    compression: Compression = Field(default="auto", description="Compression; `auto` detects it from the first bytes.")
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="CSV field separator; default: detected (TSV: tab)."
    )
    has_header: bool = Field(default=True, description="Whether the first CSV line, or Excel row, names the columns.")
    sheet: str | None = Field(default=None, max_length=31, description="Excel sheet name; default: the first.")
    null_values: list[Annotated[str, Field(max_length=64)]] = Field(
        default=["", "NA", "NULL", "null", "None", "nan", "NaN"],
        max_length=32,
        description="CSV and Excel texts that stand for a missing value.",
    )


class HttpSource(Params):
    """A file behind an HTTP or HTTPS URL."""

    kind: Literal["http"] = Field(description="Discriminator.")
    url: PublicHttpUrl = Field(description="URL of the file. Internal addresses are refused unless allow-listed.")
    connection: HttpConnectionName | None = Field(
        default=None, description="Named HTTP connection whose headers (credentials) are added to the request."
    )
    layout: FileLayout = Field(default=FileLayout(), description="Layout of the file.")


class ArtifactSource(Params):
    """An uploaded file or another job's artifact."""

    kind: Literal["artifact"] = Field(description="Discriminator.")
    uri: ArtifactUri = Field(description="The artifact's uri from `POST /uploads` or a result.")
    layout: FileLayout = Field(default=FileLayout(), description="Layout of the file.")


class StoreSource(Params):
    """A file in a named store (a folder or a bucket)."""

    kind: Literal["store"] = Field(description="Discriminator.")
    connection: StoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    path: StorePath = Field(description="Path below the store's root.")
    layout: FileLayout = Field(default=FileLayout(), description="Layout of the file.")


class SqlSource(Params):
    """A table, or the rows of a query, of a named SQL connection (PostgreSQL, SQLite, DuckDB)."""

    kind: Literal["sql"] = Field(description="Discriminator.")
    connection: SqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    table: TableName | None = Field(
        default=None, description="Table or view to read completely, `name` or `schema.name`."
    )
    query: SqlText | None = Field(
        default=None, description="One SELECT, run in a read-only transaction with the connection's permissions."
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("set exactly one of 'table' and 'query'")
        return self


Source = Annotated[HttpSource | ArtifactSource | StoreSource | SqlSource, Field(discriminator="kind")]


class TableDestination(Params):
    """A table of a named SQL connection."""

    kind: Literal["table"] = Field(description="Discriminator.")
    connection: SqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    table: TableName = Field(description="Target table, `name` or `schema.name`; created if it does not exist.")
    mode: Literal["append", "replace", "upsert"] = Field(
        default="append", description="Add rows, replace the table's rows, or update by key and insert the rest."
    )
    key: list[ColumnName] = Field(
        default=[], max_length=16, description="Columns that identify a row; for `upsert` only."
    )

    @model_validator(mode="after")
    def _key_fits_mode(self) -> Self:
        if self.mode == "upsert" and not self.key:
            raise ValueError("mode 'upsert' needs 'key': set it to the columns that identify a row")
        if self.mode != "upsert" and self.key:
            raise ValueError(f"'key' has no meaning in mode {self.mode!r}; omit it or use mode 'upsert'")
        return self


class FileDestination(Params):
    """A Parquet or CSV file, or a folder of parts, in a named store."""

    kind: Literal["file"] = Field(description="Discriminator.")
    connection: StoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    path: StorePath = Field(
        description="Path below the store's root: a file for `replace`, a folder of parts for `append`."
    )
    format: Literal["parquet", "csv"] = Field(default="parquet", description="File format.")
    mode: Literal["append", "replace"] = Field(
        default="replace", description="Replace the file, or add a part named after the job to the folder."
    )


Destination = Annotated[TableDestination | FileDestination, Field(discriminator="kind")]
