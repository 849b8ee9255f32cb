"""The decorator and the retry wait, without a broker."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contract.definition import Retry
from shared.errors import DefinitionError, TaskFailure, TimeLimitReached, TransientFailure
from tests.acme.contracts import Noted, TakeNote
from tests.acme.tasks import take_note
from worker.runtime.task import Run, backoff_s, definitions, runs


def test_the_decorated_function_stays_itself() -> None:
    """A test calls it like any function; the registry has it under its kind."""
    assert definitions()["acme.take_note"].body is take_note
    assert runs(TakeNote)(take_note) is take_note


def test_a_second_task_for_a_contract_is_refused() -> None:
    """The message names both and the way out."""

    def another(job: TakeNote, run: Run) -> Noted:
        raise AssertionError((job, run))

    with pytest.raises(DefinitionError, match=r"acme.take_note already has the task tests.acme.tasks.take_note"):
        runs(TakeNote)(another)


@given(retries=st.integers(0, 50), floor_s=st.floats(0, 1_000))
def test_the_wait_is_bounded_and_not_below_what_was_asked_for(retries: int, floor_s: float) -> None:
    """Full jitter below an exponential ceiling, over the floor that a Retry-After sets."""
    retry = Retry(max_retries=3, backoff_s=2, backoff_max_s=60)
    wait_s = backoff_s(retry, retries, floor_s=floor_s)
    assert floor_s <= wait_s <= max(floor_s, min(60, 2 * 2.0**retries))


def test_waits_spread() -> None:
    """Jobs that failed together do not come back together."""
    waits = [backoff_s(Retry(backoff_s=10), 0) for _ in range(200)]
    assert min(waits) < 2
    assert max(waits) > 8


@pytest.mark.parametrize(
    "failure",
    [
        TaskFailure("bad", "it is", remedy="do", rows=3),
        TransientFailure("flaky", "later", retry_after_s=7),
        TimeLimitReached(30),
    ],
)
def test_failures_survive_the_way_from_child_to_main_process(failure: TaskFailure) -> None:
    """The pool pickles them; nothing of them is lost."""
    copy = pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own bytes of a moment ago
    assert (type(copy), copy.document(), str(copy)) == (type(failure), failure.document(), str(failure))
