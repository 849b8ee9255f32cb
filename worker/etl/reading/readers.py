"""Turn a file of any known format into one typed Parquet file, with bounded memory.

Formats without types (CSV, Excel, JSON) are staged as text and get the types that fit all their values, see
`worker.tables.inference`. Parquet is decoded and written again, which finds a corrupt file here, not two steps later.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from shared.errors import TaskFailure
from worker.etl.reading.columnar import stage_parquet
from worker.etl.reading.compression import compression_of, decompress, member_of
from worker.etl.reading.delimited import BadRow, stage_delimited
from worker.etl.reading.documents import Shape, path_of, stage_documents
from worker.etl.reading.workbook import stage_workbook
from worker.tables.checks import Spelling
from worker.tables.guess import Guess
from worker.tables.inference import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shared.jobs.data.places import ColumnType, FileLayout
    from worker.tables.inference import Candidate

Format = Literal["csv", "tsv", "json", "ndjson", "parquet", "excel"]

_SUFFIXES: dict[str, Format] = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".json": "json", ".ndjson": "ndjson", ".jsonl": "ndjson",
    ".parquet": "parquet", ".xlsx": "excel", ".xlsm": "excel",
}  # fmt: skip
_MEDIA_TYPES: dict[str, Format] = {
    "text/csv": "csv", "text/tab-separated-values": "tsv", "application/json": "json",
    "application/x-ndjson": "ndjson", "application/jsonl": "ndjson",
}  # fmt: skip
_MAGIC: dict[bytes, Format] = {b"PAR1": "parquet", b"PK\x03\x04": "excel"}
_OLD_EXCEL = b"\xd0\xcf\x11\xe0"
_BOM = b"\xef\xbb\xbf"
_HTML = (b"<!doctype html", b"<html")


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """The limits of one task."""

    memory_limit_bytes: int
    plain_max_bytes: int
    threads: int = 1


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A local file with its name and media type, as the source gave them."""

    path: Path
    name: str
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class ReadTable:
    """What was read: rows, rows that were left out, and what the reader of the file should know."""

    row_count: int
    bad_rows: list[BadRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_file(
    source: SourceFile,
    layout: FileLayout,
    *,
    output: Path,
    scratch: Path,
    limits: ReadLimits,
    on_progress: Callable[[int, int | None, str], None],
) -> ReadTable:
    """Write the table in `source` to the new Parquet file `output`.

    `on_progress` takes the amount so far, the total and the unit (bytes or rows). Raises `TaskFailure`
    (``source_malformed``, ``source_empty``, ``source_encoding``, ``source_ambiguous``, ``source_too_large``,
    ``unknown_sheet``, ``unknown_member``, ``wrong_type``).
    """
    size_bytes = source.path.stat().st_size

    def on_bytes(count: int) -> None:
        on_progress(count, size_bytes, "bytes")

    plain = source.path
    compression = compression_of(source.path, layout.compression)
    if compression != "none":
        plain = scratch / "plain"
        member = member_of(source.path, layout.member) if compression == "zip" else ""
        decompress(source.path, plain, compression, limits.plain_max_bytes, on_bytes, member=member)
        size_bytes = plain.stat().st_size
        source = replace(source, name=member or source.name)
    if plain.stat().st_size == 0:
        raise TaskFailure("source_empty", "The source has 0 bytes.", remedy="Write it again, with a header or data.")
    found = format_of(plain, layout, source)
    staged = scratch / "staged.parquet"

    def on_rows(count: int) -> None:
        on_progress(count, None, "rows")

    if found == "parquet":
        row_count = stage_parquet(plain, staged if layout.types else output, as_texts=layout.types, on_rows=on_rows)
        if layout.types:
            settle(staged, output, {}, on_rows, told=layout.types)
        return ReadTable(row_count)
    candidates: dict[str, Candidate]
    told: dict[str, ColumnType]
    spelling = Spelling(layout.decimal, layout.thousands)
    if found in {"csv", "tsv"}:
        guess = Guess(layout.types, infers=layout.infer_types, spelling=spelling)
        delimited = stage_delimited(
            plain,
            layout,
            output,
            delimiter="\t" if found == "tsv" else None,
            on_bytes=on_bytes,
            guess=guess,
            threads=limits.threads,
        )
        candidates, told = guess.rest(delimited.names)
        if candidates or told:
            output.rename(staged)
            settle(staged, output, candidates, on_rows, told=told, spelling=spelling)
        else:
            on_rows(delimited.row_count)
        return ReadTable(delimited.row_count, delimited.bad_rows)
    warnings: list[str] = []
    if found == "excel":
        sheet = stage_workbook(
            plain,
            layout,
            staged,
            max_bytes=limits.plain_max_bytes,
            memory_limit_bytes=limits.memory_limit_bytes,
            on_rows=on_rows,
        )
        candidates, warnings = dict.fromkeys(sheet.names, "any"), sheet.warnings
    else:
        shape = Shape(path_of(layout.record_path), layout.flatten, layout.non_finite)
        candidates = stage_documents(plain, staged, on_bytes=on_bytes, shape=shape)
    told = dict.fromkeys([] if layout.infer_types else candidates, "string")
    told |= layout.types
    row_count = settle(staged, output, candidates, on_rows, told=told, spelling=spelling)
    return ReadTable(row_count, warnings=warnings)


def format_of(plain: Path, layout: FileLayout, source: SourceFile) -> Format:
    """Return the file's format: from the layout, else from first bytes, name, media type and first character.

    Raises `TaskFailure` (``source_malformed``) if the first bytes contradict the layout.
    """
    with plain.open("rb") as file:
        start = file.read(512)
    by_magic = next((found for magic, found in _MAGIC.items() if start.startswith(magic)), None)
    binary_wanted = layout.format in _MAGIC.values()
    if layout.format != "auto" and (by_magic or binary_wanted) and by_magic != layout.format:
        raise _contradiction(layout.format, by_magic)
    text = start.removeprefix(_BOM).lstrip()
    if start.startswith(_OLD_EXCEL) or text.lower().startswith(_HTML):
        what, remedy = (
            ("a web page", "Use the address of the file itself; a login page is sent where credentials are missing.")
            if text[:1] == b"<"
            else ("an Excel file of the old format (.xls)", "Save it as .xlsx or CSV, and submit that.")
        )
        raise TaskFailure("source_malformed", f"The source is {what}.", remedy=remedy)
    if layout.format != "auto":
        return layout.format
    suffixes = [suffix.lower() for suffix in PurePosixPath(source.name).suffixes]
    by_name = next((_SUFFIXES[suffix] for suffix in reversed(suffixes) if suffix in _SUFFIXES), None)
    by_sign: Format = "json" if text[:1] in {b"{", b"["} else "csv"
    named = by_name or _MEDIA_TYPES.get(source.media_type)
    if by_magic is None and named in _MAGIC.values():
        raise _contradiction(str(named), None)
    return by_magic or named or by_sign


def _contradiction(wanted: str, found: str | None) -> TaskFailure:
    return TaskFailure(
        "source_malformed",
        f"The source should be {wanted}, but it begins like {found or 'another format'}.",
        remedy="Check the source, or set layout.format to its real format.",
    )
