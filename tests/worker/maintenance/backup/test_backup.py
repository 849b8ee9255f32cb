"""A backup restores what it was made of, and that is proved; what is not a sound backup is refused before it writes."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.contract.artifacts import Column
from shared.errors import TaskFailure
from shared.ledger.ids import uuid7
from tests.support.engines import Engine, make_engine
from worker.maintenance.backup.archive import ArchiveWriter
from worker.maintenance.backup.backup import Bounds, back_up_store, back_up_tables
from worker.maintenance.backup.digest import files_digest
from worker.maintenance.backup.manifest import Manifest, TableContent
from worker.maintenance.backup.restore import restore_store, restore_table
from worker.reach.connections import StoreConnection

MIB = 1024**2
VALUES = (
    "(1, 'a', 1.50, 0.1, '2026-01-01', '2026-01-01 10:00:00.000001', true)",
    "(2, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(3, 'ü''\"', -7.25, 3.0, '1969-12-31', '1969-12-31 23:59:59', false)",
    "(3, 'ü''\"', -7.25, 3.0, '1969-12-31', '1969-12-31 23:59:59', false)",
)


def bounds(folder: Path, max_bytes: int = 64 * MIB) -> Bounds:
    """Return bounds with a scratch folder of their own."""
    scratch = folder / uuid7()
    scratch.mkdir()
    return Bounds(scratch, 64 * MIB, 1, max_bytes, lambda *_: None)


def engine_in(kind: str, folder: Path, request: pytest.FixtureRequest) -> Engine:
    """Return an empty database with files in a folder of their own."""
    folder.mkdir(parents=True)
    return make_engine(kind, folder, request)


def restored(backup: Path, engine: Engine, *, replace: bool = False, load_id: str = "one") -> Manifest:
    """Restore into the table `copy`."""
    return restore_table(
        backup, engine.database, "copy", replace=replace, load_id=load_id, bounds=bounds(backup.parent)
    ).manifest


def store_in(folder: Path, **files: str) -> StoreConnection:
    """Return a store whose folder `day` has these files; two underscores in a name are a slash."""
    for name, content in files.items():
        path = folder / "day" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    folder.mkdir(exist_ok=True)
    return StoreConnection(folder.name, fsspec.filesystem("file"), str(folder))


def contents(folder: Path) -> dict[str, str]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("source", "destination"), [("sqlite", "duckdb"), ("postgresql", "postgresql"), ("duckdb", "sqlite")]
)
def test_a_table_comes_back_as_it_was(
    source: str, destination: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Every value of every row, also in another engine, twice the same row twice; a repeated job loads it once."""
    made = engine_in(source, tmp_path / "made", request)
    target = made if source == destination else engine_in(destination, tmp_path / "target", request)
    made.run(
        "CREATE TABLE sales (id BIGINT, name TEXT, price DECIMAL(12, 2), weight DOUBLE PRECISION, day DATE, "
        "seen_at TIMESTAMP, paid BOOLEAN)",
        f"INSERT INTO sales VALUES {', '.join(VALUES)}",  # noqa: S608 - the test's own values
    )
    backup = tmp_path / "backup.zip"
    manifest = back_up_tables(made.database, ["sales"], backup, bounds(tmp_path))
    assert (manifest.row_count, manifest.kind, manifest.source) == (4, "table", "warehouse:sales")
    assert restored(backup, target) == restored(backup, target) == manifest
    columns = "id, name, CAST(price AS REAL), weight, CAST(day AS TEXT), CAST(seen_at AS TEXT), paid"
    look = f"SELECT {columns} FROM {{}} ORDER BY id"  # noqa: S608 - the test's own names
    before, after = made.run(look.format("sales")), target.run(look.format("copy"))
    assert [row[:4] for row in after] == [row[:4] for row in before]
    assert [[str(value)[:19] for value in row[4:6]] for row in after] == [
        [str(value)[:19] for value in row[4:6]] for row in before
    ]
    assert [row[6] and bool(row[6]) for row in after] == [row[6] and bool(row[6]) for row in before]


@pytest.mark.parametrize("destination", ["sqlite", "postgresql", "duckdb"])
def test_types_that_engines_store_in_their_own_way_are_proved(
    destination: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Instants, times of day, bytes, and integers beyond 63 bits compare equal after the way there and back."""
    made, target = (
        engine_in(kind, tmp_path / name, request) for name, kind in (("made", "duckdb"), ("target", destination))
    )
    made.run(
        "CREATE TABLE sales (a TIMESTAMPTZ, b TIME, c BLOB, d UBIGINT, e FLOAT, f TINYINT, g DECIMAL(30, 9))",
        "INSERT INTO sales VALUES ('2026-01-01 10:00:00.5+02', '23:59:59.25', '\\x00\\xFF'::BLOB, "
        "18446744073709551615, 0.1, -3, 1234567890123456789.000000001), (NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    )
    backup = tmp_path / "backup.zip"
    manifest = back_up_tables(made.database, ["sales"], backup, bounds(tmp_path))
    assert restored(backup, target) == manifest


def test_the_digest_is_what_it_says(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is the sum over rows of two words of the SHA-256 of their text: recomputed here row by row."""
    engine = engine_in("sqlite", tmp_path / "made", request)
    engine.run("CREATE TABLE sales (name TEXT, id INTEGER)", "INSERT INTO sales VALUES ('a', 1), (NULL, 20), ('ü', 3)")
    manifest = back_up_tables(engine.database, ["sales"], tmp_path / "b.zip", bounds(tmp_path))
    digests = [hashlib.sha256(row.encode()).digest() for row in ("1:11:a", "2:20-", "1:31:ü")]
    words = (sum(int.from_bytes(one[at : at + 8], "big") for one in digests) for at in (0, 8))
    assert manifest.digest == "-".join(f"{word:x}" for word in words)


def test_a_table_that_is_there_is_not_overwritten(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """It is refused in mode new; in mode replace its rows give way, and what cannot be proved fails the job."""
    engine = engine_in("sqlite", tmp_path / "made", request)
    engine.run("CREATE TABLE sales (id INTEGER)", "INSERT INTO sales VALUES (1), (2)")
    backup = tmp_path / "backup.zip"
    back_up_tables(engine.database, ["sales"], backup, bounds(tmp_path))
    engine.run("CREATE TABLE copy (id INTEGER)", "INSERT INTO copy VALUES (9)")
    with pytest.raises(TaskFailure) as failure:
        restored(backup, engine)
    assert (failure.value.code, engine.run("SELECT * FROM copy")) == ("table_exists", [(9,)])
    restored(backup, engine, replace=True)
    assert engine.run("SELECT * FROM copy ORDER BY id") == [(1,), (2,)]
    engine.run("CREATE TRIGGER odd AFTER INSERT ON copy BEGIN UPDATE copy SET id = id + 10 WHERE id < 10; END")
    with pytest.raises(TaskFailure) as failure:
        restored(backup, engine, replace=True, load_id="two")
    assert failure.value.code == "restore_not_exact"


def test_files_of_a_store_come_back(tmp_path: Path) -> None:
    """Folders and contents, with the digest of the sorted checksums; a rerun writes nothing again."""
    files = {"a.txt": "one", "b__c.txt": "two", "manifest.json": "{}", "empty": ""}
    lake, target = store_in(tmp_path / "lake", **files), store_in(tmp_path / "target")
    backup = tmp_path / "backup.zip"
    manifest = back_up_store(lake, "day", backup, bounds(tmp_path))
    lines = (f"{hashlib.sha256(c.encode()).hexdigest()}  {n.replace('__', '/')}\n" for n, c in files.items())
    assert manifest.digest == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
    restore_store(backup, target, "old/day", replace=False, bounds=bounds(tmp_path))
    there = tmp_path / "target" / "old" / "day"
    assert contents(there) == contents(tmp_path / "lake" / "day")
    written_at = {path: path.stat().st_mtime_ns for path in there.rglob("*.txt")}
    restore_store(backup, target, "old/day", replace=False, bounds=bounds(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in there.rglob("*.txt")} == written_at


def test_files_that_are_there_are_not_overwritten(tmp_path: Path) -> None:
    """A folder with other files is refused in mode new; in mode replace it has the backup's files and no others."""
    lake, target = store_in(tmp_path / "lake", a="one"), store_in(tmp_path / "target", a="other", b="more")
    backup = tmp_path / "backup.zip"
    back_up_store(lake, "day", backup, bounds(tmp_path))
    with pytest.raises(TaskFailure) as failure:
        restore_store(backup, target, "day", replace=False, bounds=bounds(tmp_path))
    assert (failure.value.code, contents(tmp_path / "target" / "day")) == (
        "destination_not_empty",
        {"a": "other", "b": "more"},
    )
    restore_store(backup, target, "day", replace=True, bounds=bounds(tmp_path))
    assert contents(tmp_path / "target" / "day") == {"a": "one"}


def test_a_link_out_of_the_store_is_not_followed(tmp_path: Path) -> None:
    """Neither for reading nor for writing."""
    (tmp_path / "secret").write_text("s")
    lake = store_in(tmp_path / "lake", a="one")
    (tmp_path / "lake" / "day" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(TaskFailure) as failure:
        back_up_store(lake, "day", tmp_path / "backup.zip", bounds(tmp_path))
    assert failure.value.code == "path_outside_store"


def test_nothing_to_back_up_is_a_failure(tmp_path: Path) -> None:
    """A mistyped folder does not make an empty backup."""
    with pytest.raises(TaskFailure) as failure:
        back_up_store(store_in(tmp_path / "lake"), "day", tmp_path / "backup.zip", bounds(tmp_path))
    assert failure.value.code == "source_missing"


def forged(path: Path, *, name: str = "a", content: bytes = b"one", extra: str = "", **member: Any) -> Path:
    """Write an archive whose manifest says of its only file what `member` has instead of the truth."""
    entry = {"path": name, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **member}
    manifest = {"kind": "store", "source": "x:y", "created_at": "now", "digest": "d", "files": [entry]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"content/{name}", content)
        if extra:
            file.writestr(extra, b"more")
        file.writestr("manifest.json", json.dumps(manifest))
    return path


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"name": "../evil"}, "relative"),
        ({"name": "/etc/evil"}, "relative"),
        ({"name": "a\\..\\evil"}, "relative"),
        ({"sha256": "0" * 64}, "checksum"),
        ({"size_bytes": 2}, "has 3 bytes, not 2"),
        ({"extra": "content/b"}, "members"),
        ({"extra": "content/a"}, "members"),
        ({"content": bytes(3 * MIB)}, "unpacks to 3145728 bytes"),
        ({"sha256": "short"}, "manifest"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # one of the forgeries is just that
def test_a_forged_backup_is_refused_before_anything_is_written(what: dict[str, Any], said: str, tmp_path: Path) -> None:
    """Paths that lead elsewhere, wrong checksums and sizes, members that nobody named, and bombs."""
    target = store_in(tmp_path / "target")
    backup = forged(tmp_path / "backup.zip", **what)
    with pytest.raises(TaskFailure) as failure:
        restore_store(backup, target, "day", replace=True, bounds=bounds(tmp_path, max_bytes=MIB))
    assert failure.value.code == "backup_refused"
    assert said in failure.value.message
    assert contents(tmp_path / "target") == {}


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-30], lambda _: b"hello", lambda b: b[:62] + bytes([b[62] ^ 255]) + b[63:], lambda _: b""]
)
def test_a_damaged_backup_is_refused(spoil: Any, tmp_path: Path) -> None:
    """Cut off, of another kind, changed by one byte, empty."""
    backup = tmp_path / "backup.zip"
    back_up_store(store_in(tmp_path / "lake", a="one" * 50), "day", backup, bounds(tmp_path))
    backup.write_bytes(spoil(backup.read_bytes()))
    with pytest.raises(TaskFailure) as failure:
        restore_store(backup, store_in(tmp_path / "target"), "day", replace=False, bounds=bounds(tmp_path))
    assert (failure.value.code, contents(tmp_path / "target")) == ("backup_refused", {})


@pytest.mark.parametrize(
    ("spoiled", "row_count", "said"), [(True, 3, "not a valid Parquet"), (False, 4, "rows"), (False, 3, "rows")]
)
def test_a_forged_backup_of_a_table_is_refused_before_anything_is_written(
    *, spoiled: bool, row_count: int, said: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Checksums that are right, and a table whose pages are broken or whose rows are not those of the manifest."""
    file = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2, 3]}), file, use_dictionary=False, compression="none")
    raw = file.getvalue()
    raw = raw[:4] + b"\xff" * 40 + raw[44:] if spoiled else raw
    backup = tmp_path / "backup.zip"
    columns = [Column(name="id", type="int64")]
    with ArchiveWriter(backup) as writer:
        writer.add("table.parquet", io.BytesIO(raw), lambda _: None, packed=True)
        content = TableContent(name="b", path="table.parquet", row_count=row_count, digest="1-2", columns=columns)
        facts: dict[str, Any] = {"source": "a:b", "created_at": "now", "digest": "1-2", "tables": [content]}
        writer.finish(Manifest(kind="table", **facts, files=writer.files))
    engine = engine_in("sqlite", tmp_path / "engine", request)
    with pytest.raises(TaskFailure) as failure:
        restored(backup, engine)
    assert failure.value.code == "backup_refused"
    assert said in failure.value.message
    assert engine.run("SELECT name FROM sqlite_master WHERE name = 'copy'") == []


def test_a_size_that_is_a_lie_is_found_while_unpacking(tmp_path: Path) -> None:
    """A directory that says less than a member unpacks to does not make more than that unpacked."""
    backup = forged(tmp_path / "backup.zip", content=bytes(2 * MIB))
    raw, true, lie = backup.read_bytes(), (2 * MIB).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    backup.write_bytes(raw.replace(true, lie))
    entry = forged(tmp_path / "other.zip", content=bytes(1000))
    with zipfile.ZipFile(entry) as file:
        assert file.getinfo("content/a").file_size == 1000
    with pytest.raises(TaskFailure) as failure:
        restore_store(backup, store_in(tmp_path / "target"), "day", replace=False, bounds=bounds(tmp_path))
    assert failure.value.code == "backup_refused"


def test_content_that_looks_like_a_directory_is_content(tmp_path: Path) -> None:
    """Rows or files can have the bytes with which a large directory begins, before the end of the archive."""
    backup, looks = tmp_path / "backup.zip", b"PK\x06\x06" + b"\xff" * 60
    with ArchiveWriter(backup) as writer:
        writer.add("a", io.BytesIO(looks), lambda _: None, packed=True)
        facts: dict[str, Any] = {"source": "a:b", "created_at": "now"}
        digest = files_digest([("a", hashlib.sha256(looks).hexdigest())])
        writer.finish(Manifest(kind="store", digest=digest, **facts, files=writer.files))
    target = store_in(tmp_path / "target")
    restore_store(backup, target, "day", replace=False, bounds=bounds(tmp_path))
    assert (tmp_path / "target" / "day" / "a").read_bytes() == looks


def test_a_backup_of_another_kind_is_refused(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Files do not go into a table."""
    backup = tmp_path / "backup.zip"
    back_up_store(store_in(tmp_path / "lake", a="one"), "day", backup, bounds(tmp_path))
    with pytest.raises(TaskFailure) as failure:
        restored(backup, engine_in("sqlite", tmp_path / "made", request))
    assert failure.value.code == "backup_of_another_kind"
