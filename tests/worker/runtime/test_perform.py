"""What becomes of the result of a body."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from shared.errors import TaskFailure
from shared.storage import ArtifactStore
from tests.acme.authors_contracts import Done, Use
from worker.runtime.alone import Notes, alone
from worker.runtime.perform import MAX_MAPPED_BYTES, MAX_RESULT_BYTES, perform, perform_each
from worker.runtime.run import Run

SNOWMAN = "\N{SNOWMAN}"  # three bytes


def says(text: str) -> Any:
    def body(_: Use, __: Run) -> BaseModel:
        return Done(said=text)

    return body


@pytest.fixture
def run(tmp_path: Any) -> Any:
    with alone(Use, "job", ArtifactStore(str(tmp_path)), Notes()) as made:
        yield made


def test_the_size_of_a_result_is_that_of_its_bytes(run: Run) -> None:
    """It is stored as UTF-8, so a character counts for what it needs; the failure says how large the result is."""
    around = len('{"said":""}')
    fits = SNOWMAN * ((MAX_RESULT_BYTES - around) // 3)
    assert len(perform(Use, says(fits), run, {"what": "x"}, []).encode()) <= MAX_RESULT_BYTES
    with pytest.raises(TaskFailure) as failed:
        perform(Use, says(fits + SNOWMAN), run, {"what": "x"}, [])
    assert failed.value.code == "result_too_large"
    assert f"has {len(fits.encode()) + 3 + around} bytes; the maximum is {MAX_RESULT_BYTES}" in failed.value.message


def test_the_size_of_the_results_of_a_map_is_that_of_their_bytes(run: Run) -> None:
    """Of all together."""
    text = SNOWMAN * (MAX_MAPPED_BYTES // 12)
    with pytest.raises(TaskFailure) as failed:
        perform_each(Use, says(text), run, [{"what": "x"}] * 4)
    assert failed.value.code == "result_too_large"
