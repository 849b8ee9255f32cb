"""The artifact store: what is there is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.contract.artifacts import Artifact
from shared.errors import TransientFailure
from shared.ledger.ids import uuid7
from shared.storage import ArtifactStore
from tests.support.servers.disks import small_disk


def _published(store: ArtifactStore, folder: Path, size_bytes: int) -> Artifact:
    made = folder / "made.bin"
    made.write_bytes(b"x" * size_bytes)
    return store.put(made, file_owner=uuid7(), attempt=1, name="made.bin", role="file", media_type="text/plain")


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    """The failure is transient and says so; half a file would take the room of others."""
    with small_disk(tmp_path / "store", 256 * 1024) as disk:
        store = ArtifactStore(str(disk))
        with pytest.raises(TransientFailure) as refused:
            _published(store, tmp_path, 1024 * 1024)
        assert refused.value.code == "store_full"
        assert "1048576 bytes" in refused.value.message
        assert [path for path in disk.rglob("*") if path.is_file()] == []
        assert _published(store, tmp_path, 128 * 1024).size_bytes == 128 * 1024
