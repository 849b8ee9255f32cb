"""Stage JSON: an array of objects, one object, or one object a line.

The union of all objects' keys makes the columns. Numbers and booleans get types; texts stay texts, even those that
look like dates; nested values, and columns with values of several kinds, are kept as JSON text.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from shared.errors import TaskFailure
from worker.etl.columns import quoted, text
from worker.etl.staging import column_names

if TYPE_CHECKING:
    from pathlib import Path

    from worker.etl.engine import Engine
    from worker.etl.inference import Candidate

_OBJECT_BYTES = 16 * 1024**2  # the largest single object
_BOM = b"\xef\xbb\xbf"
_NUMBERS = {"BIGINT", "UBIGINT", "HUGEINT", "DOUBLE"}


def stage_documents(
    engine: Engine, path: Path, staged: Path, *, wanted: Literal["json", "ndjson"]
) -> dict[str, Candidate]:
    """Write the objects of a plain JSON file to `staged` as text; return what each column may become.

    Raises `TaskFailure` (``source_malformed``, ``source_empty``).
    """
    shape = _shape(path, wanted)
    options = f"format = '{shape}', maximum_object_size = {_OBJECT_BYTES}, hive_partitioning = false"
    records = f"SELECT json FROM read_json_objects({text(str(path))}, {options})"  # noqa: S608 - our own path
    others = "count(*) FILTER (json_type(json) <> 'OBJECT')"
    survey = f"SELECT json_group_structure(json), count(*), {others} FROM ({records})"  # noqa: S608 - see above
    ((structure, count, other_count),) = engine.rows(survey)
    if other_count:
        raise TaskFailure(
            "source_malformed",
            f"{other_count} of the {count} JSON values are no objects, so they have no columns.",
            remedy="Give an array of objects, one object, or one object a line.",
        )
    fields: dict[str, Any] = json.loads(structure) if count else {}
    if not fields:
        raise TaskFailure(
            "source_empty", "The source has no JSON object with a key, so it has no columns.", remedy="Check it."
        )
    names = column_names(fields)
    pointers = [f"/{key.replace('~', '~0').replace('/', '~1')}" for key in fields]
    values = ", ".join(f"fields[{at}] AS {quoted(name)}" for at, name in enumerate(names, start=1))
    extracted = f"SELECT json_extract_string(json, $pointers) AS fields FROM ({records})"  # noqa: S608 - see above
    engine.write(f"SELECT {values} FROM ({extracted})", {"pointers": pointers}, staged)  # noqa: S608 - quoted
    return {name: _candidate(kind) for name, kind in zip(names, fields.values(), strict=True)}


def _candidate(kind: Any) -> Candidate:
    if isinstance(kind, str) and kind in _NUMBERS:
        return "number"
    return "boolean" if kind == "BOOLEAN" else "text"


def _shape(path: Path, wanted: Literal["json", "ndjson"]) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    if wanted == "ndjson" and not start.startswith(_BOM):
        return "newline_delimited"
    return "array" if start.removeprefix(_BOM).lstrip().startswith(b"[") else "unstructured"
