"""Sources and destinations of data: files and tables, and the layout of files."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.contract.artifacts import ArtifactUri
from shared.contract.names import (
    ColumnName,
    HttpConnectionName,
    ReadSqlConnectionName,
    ReadStoreConnectionName,
    SqlConnectionName,
    StoreConnectionName,
    StorePath,
    TableName,
)
from shared.contract.params import Component, Params
from shared.jobs.data.steps import SqlText
from shared.jobs.data.urls import PublicHttpUrl

FileFormat = Literal["auto", "csv", "tsv", "json", "ndjson", "parquet", "excel"]
Compression = Literal["auto", "none", "gzip", "zstd", "zip"]
ColumnType = Literal["integer", "float", "decimal", "string", "boolean", "date", "timestamp", "timestamptz", "time"]
_Sign = Annotated[str, Field(min_length=1, max_length=1)]

_MOST_KEYS = 32  # of a path in a document


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, UnicodeError):
        raise ValueError(
            f"{name!r} is not a known text encoding; use for example 'utf-8', 'cp1252' or 'utf-16'"
        ) from None
    return name


def _keys(path: str) -> str:
    keys = path[1:].split("/") if path.startswith("/") else path.split(".")
    if len(keys) > _MOST_KEYS or not all(keys):
        raise ValueError(
            f"has 1 to {_MOST_KEYS} keys, none of them empty; write for example 'data.items' or '/data/items'"
        )
    return path


class FileLayout(Params):
    """Layout of a file."""

    format: FileFormat = Field(
        default="auto", description="File format; `auto` detects it from name, media type and first bytes."
    )
    compression: Compression = Field(default="auto", description="Compression; `auto` detects it from the first bytes.")
    member: str | None = Field(
        default=None, min_length=1, max_length=1_024, description="File inside a `.zip`; default: the only one."
    )
    delimiter: _Sign | None = Field(default=None, description="CSV field separator; default: detected (TSV: tab).")
    encoding: Annotated[str, AfterValidator(_known_encoding)] | None = Field(
        default=None,
        max_length=64,
        description="CSV: a text encoding of Python, for example `cp1252`; default: what the byte order mark says, "
        "else UTF-8.",
    )
    skip_rows: int = Field(default=0, ge=0, le=100_000, description="Lines (CSV) or rows (Excel) above the header.")
    quote: _Sign | None = Field(default='"', description="CSV quote; null: quotes have no meaning.")
    escape: _Sign | None = Field(
        default=None,
        description="CSV: a sign that makes the next one part of the value; default: a backslash if the file shows it.",
    )
    comment: _Sign | None = Field(default=None, description="CSV: lines that begin with this sign are skipped.")
    decimal: Literal[".", ","] = Field(default=".", description="CSV and Excel texts: decimal sign of numbers.")
    thousands: Literal[",", ".", " ", "'", "_", "\u00a0", "\u202f"] | None = Field(
        default=None, description="CSV and Excel texts: sign between groups of three digits."
    )
    on_bad_rows: Literal["fail", "skip", "reject"] = Field(
        default="fail",
        description="CSV rows with too few or too many fields: `fail` the job, `skip` and count them, or `reject` them "
        "into an artifact with their line numbers.",
    )
    has_header: bool = Field(default=True, description="Whether the first CSV line, or Excel row, names the columns.")
    sheet: str | None = Field(default=None, max_length=31, description="Excel sheet name; default: the first.")
    null_values: list[Annotated[str, Field(max_length=64)]] = Field(
        default=[""],
        max_length=32,
        description="CSV and Excel texts that stand for a missing value, for example `NA`; default: an empty field.",
    )
    quoted_nulls: bool = Field(
        default=False, description="CSV: whether a quoted field can stand for a missing value, too."
    )
    record_path: Annotated[str, AfterValidator(_keys)] | None = Field(
        default=None,
        max_length=1_000,
        description="JSON: keys that lead to the objects within a document, `data.items` or the pointer `/data/items`.",
    )
    flatten: str | None = Field(
        default=None,
        pattern=r"^(\.|_|__|/)$",  # no enumeration: in TypeScript, a value of underscores has no name
        description="JSON: makes columns of nested objects, with `.`, `_`, `__` or `/` between the keys; default: JSON "
        "text.",
    )
    non_finite: Literal["fail", "keep", "null"] = Field(
        default="fail", description="JSON: what becomes of `NaN` and `Infinity`, which JSON does not have."
    )
    types: dict[ColumnName, ColumnType] = Field(
        default={},
        max_length=2_000,
        description="Types of columns, which every value must have; default: what all values fit, or the file's own.",
    )
    infer_types: bool = Field(
        default=True,
        description="CSV, Excel, JSON: whether columns that `types` does not name get a type, or are text.",
    )

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal == self.thousands:
            raise ValueError("'decimal' and 'thousands' must differ; set both, for example ',' and '.'")
        signs = [one for one in (self.delimiter, self.quote, self.escape, self.comment) if one is not None]
        if len(set(signs)) < len(signs):
            raise ValueError("'delimiter', 'quote', 'escape' and 'comment' must differ")
        if any(one in "\r\n\0" or not one.isascii() for one in signs):
            raise ValueError("'delimiter', 'quote', 'escape' and 'comment' are ASCII characters, but no line ends")
        return self


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
    connection: ReadStoreConnectionName = Field(description="Name of a store, as configured on the workers.")
    path: StorePath = Field(description="Path below the store's root.")
    layout: FileLayout = Field(default=FileLayout(), description="Layout of the file.")


class TableOrQuery(Params):
    """A table, or the rows of a query, of a named SQL connection."""

    connection: ReadSqlConnectionName = Field(description="Name of a SQL connection, as configured on the workers.")
    table: TableName | None = Field(default=None, description="The table or view, `name` or `schema.name`.")
    query: SqlText | None = Field(
        default=None,
        description="One SELECT instead of a table, run in a read-only transaction with the connection's permissions.",
    )
    dates_out_of_range: Literal["fail", "null"] = Field(
        default="fail",
        description="What becomes of a date or time that is infinite or outside of the years 1 to 9999: the job fails "
        "with the column's name, or the value becomes missing.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError("set exactly one of 'table' and 'query'")
        return self


class SqlSource(TableOrQuery):
    """A table, or the rows of a query, of a named SQL connection (PostgreSQL, SQLite, DuckDB)."""

    kind: Literal["sql"] = Field(description="Discriminator.")


Source = Annotated[
    HttpSource | ArtifactSource | StoreSource | SqlSource, Field(discriminator="kind"), Component("Source")
]


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
    new_columns: Literal["refuse", "add"] = Field(
        default="refuse", description="Policy for columns of the dataset that the table lacks: `refuse` or `add` them."
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


Destination = Annotated[TableDestination | FileDestination, Field(discriminator="kind"), Component("Destination")]
