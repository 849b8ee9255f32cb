"""Loading into files of a store."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import ClaimLost, TaskFailure, TransientFailure
from shared.jobs.data.places import FileDestination
from tests.support.engines import ignore_progress
from worker.etl.writing.load_file import load_file
from worker.reach.connections import StoreConnection
from worker.tables.load import Loaded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TABLE = pa.table({"id": [1, 2, 3], "category": ["a", "b", None]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path


@pytest.fixture(params=["folder", "objects"])
def store(request: pytest.FixtureRequest, folder: Path) -> StoreConnection:
    if request.param == "folder":
        return StoreConnection("exports", fsspec.filesystem("file"), str(folder / "store"))
    return StoreConnection("exports", fsspec.filesystem("memory"), f"/{folder.name}")


def load(
    store: StoreConnection,
    folder: Path,
    table: pa.Table = TABLE,
    *,
    path: str = "daily/sales.parquet",
    file_format: str = "parquet",
    mode: str = "replace",
    load_id: str = "first",
    on_progress: Callable[[int, int | None], None] = ignore_progress,
) -> Loaded:
    dataset = folder / "dataset.parquet"
    pq.write_table(table, dataset)
    destination = FileDestination.model_validate(
        {"kind": "file", "connection": "exports", "path": path, "format": file_format, "mode": mode}
    )
    return load_file(store, destination, dataset, load_id=load_id, scratch=folder / "scratch", on_progress=on_progress)


def read(store: StoreConnection, path: str) -> bytes:
    content: bytes = store.fs.cat_file(store.locate(path))
    return content


def names(store: StoreConnection) -> list[str]:
    return sorted(path.rsplit("/", 1)[1] for path in store.fs.find(store.root))


def test_replace_writes_one_file_however_often_it_is_delivered(store: StoreConnection, folder: Path) -> None:
    """Folders are made; a later delivery puts the same content into the same place."""
    expected = Loaded("exports:daily/sales.parquet", "replace", 3, 0, 0)
    assert load(store, folder) == expected
    assert load(store, folder) == expected
    assert names(store) == ["sales.parquet"]
    assert pq.read_table(pa.BufferReader(read(store, "daily/sales.parquet"))) == TABLE


def test_append_adds_one_part_a_load(store: StoreConnection, folder: Path) -> None:
    """The part is named after the load, so a second delivery finds it."""
    first = load(store, folder, path="parts", mode="append")
    again = load(store, folder, path="parts", mode="append")
    load(store, folder, path="parts", mode="append", load_id="second/../../odd")
    assert first == Loaded("exports:parts/part-first.parquet", "append", 3, 0, 0)
    assert again == Loaded("exports:parts/part-first.parquet", "append", 3, 0, 0, already_loaded=True)
    assert len(names(store)) == 2
    assert all(name.startswith("part-") and name.endswith(".parquet") for name in names(store))


def test_csv_is_exact_data(store: StoreConnection, folder: Path) -> None:
    """Missing is empty, an empty text is quoted, a formula stays what it is, quotes and lines survive."""
    table = pa.table(
        {
            "text": ["=1+1", "", None, 'a "b"\nc,d'],
            "int": [2**63 - 1, -1, None, 0],
            "float": [0.1, math.inf, None, 1e-300],
            "decimal": pa.array([Decimal("1.10"), None, None, Decimal("-0.01")], pa.decimal128(5, 2)),
            "date": [dt.date(2026, 1, 1), None, None, None],
            "flag": [True, False, None, None],
        }
    )
    loaded = load(store, folder, table, path="sales.csv", file_format="csv")
    assert loaded == Loaded("exports:sales.csv", "replace", 4, 0, 0)
    assert read(store, "sales.csv").decode() == (
        '"text","int","float","decimal","date","flag"\n'
        '"=1+1",9223372036854775807,0.1,1.10,2026-01-01,true\n'
        '"",-1,inf,,,false\n'
        ",,,,,\n"
        '"a ""b""\nc,d",0,1e-300,-0.01,,\n'
    )


def test_csv_sums_equal_those_of_pandas(store: StoreConnection, folder: Path) -> None:
    """Pandas reads the same rows from the CSV as from the dataset."""
    frame = pd.DataFrame({"category": ["a", "b"] * 20_000, "value": [i / 4 for i in range(40_000)]})
    load(store, folder, pa.Table.from_pandas(frame, preserve_index=False), path="s.csv", file_format="csv")
    actual = pd.read_csv(pa.BufferReader(read(store, "s.csv")))
    pd.testing.assert_frame_equal(frame.groupby("category").sum(), actual.groupby("category").sum(), check_exact=True)


@pytest.mark.parametrize(
    ("values", "kind"), [([[1]], pa.list_(pa.int32())), ([b"\xff"], pa.binary()), ([{"a": 1}], None)]
)
def test_types_that_csv_cannot_hold_are_refused(
    store: StoreConnection, folder: Path, values: list[Any], kind: pa.DataType | None
) -> None:
    """Nested and binary columns have no exact text; the store stays empty."""
    with pytest.raises(TaskFailure, match="'x'") as caught:
        load(store, folder, pa.table({"x": pa.array(values, kind)}), path="s.csv", file_format="csv")
    assert caught.value.code == "type_not_loadable"
    assert names(store) == []


def test_a_path_that_is_taken_is_refused(store: StoreConnection, folder: Path) -> None:
    """A file never replaces a folder, and no folder is made of a file."""
    load(store, folder, path="a/b.parquet")
    for path, mode in (("a", "replace"), ("a/b.parquet", "append")):
        with pytest.raises(TaskFailure) as caught:
            load(store, folder, path=path, mode=mode)
        assert caught.value.code == "path_taken"
    assert names(store) == ["b.parquet"]


def test_a_link_out_of_the_store_is_not_followed(folder: Path) -> None:
    """What is outside of the root is never written."""
    outside = folder / "outside"
    outside.mkdir()
    (folder / "store" / "link").symlink_to(outside)
    (outside / "x.parquet").write_bytes(b"theirs")
    (folder / "store" / "file.parquet").symlink_to(outside / "x.parquet")
    store = StoreConnection("exports", fsspec.filesystem("file"), str(folder / "store"))
    for path, mode in (("link/y.parquet", "replace"), ("link", "append"), ("file.parquet", "replace")):
        with pytest.raises(TaskFailure) as caught:
            load(store, folder, path=path, mode=mode)
        assert caught.value.code == "path_outside_store"
    assert [path.name for path in outside.iterdir()] == ["x.parquet"]
    assert (outside / "x.parquet").read_bytes() == b"theirs"


def test_a_failed_replace_leaves_the_old_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full while the new file is written: readers keep the old one, and that is transient."""
    store = StoreConnection("exports", fsspec.filesystem("file"), str(folder / "store"))
    load(store, folder)
    before = read(store, "daily/sales.parquet")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TransientFailure, match="No space left") as caught:
        load(store, folder, pa.table({"id": [9]}))
    assert caught.value.code == "store_unavailable"
    assert names(store) == ["sales.parquet"]
    assert read(store, "daily/sales.parquet") == before


def test_a_store_without_rights_is_final(folder: Path) -> None:
    """A root that is a file cannot be written, and never will be."""
    (folder / "store" / "root").write_text("a file")
    store = StoreConnection("exports", fsspec.filesystem("file"), str(folder / "store" / "root"))
    with pytest.raises(TaskFailure) as caught:
        load(store, folder, path="a/b.parquet")
    assert (caught.value.code, caught.value.retryable) == ("store_refused", False)


def test_a_lost_claim_ends_the_load(store: StoreConnection, folder: Path) -> None:
    """What progress raises passes through, and nothing is in the store."""

    def lost(_done: int, _total: int | None) -> None:
        raise ClaimLost("another worker has it")

    with pytest.raises(ClaimLost):
        load(store, folder, on_progress=lost)
    assert names(store) == []


def test_progress_ends_at_the_total(store: StoreConnection, folder: Path) -> None:
    """Rows are counted."""
    seen: list[tuple[int, int | None]] = []
    load(store, folder, path="s.csv", file_format="csv", on_progress=lambda *now: seen.append(now))
    assert (seen[0], seen[-1]) == ((0, 3), (3, 3))
