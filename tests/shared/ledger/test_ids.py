"""Job ids sort by time."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shared.ledger.ids import time_floor, uuid7

if TYPE_CHECKING:
    import pytest


def test_id_is_a_version_7_uuid() -> None:
    """RFC 9562: version 7, variant 10, and the time in the first 48 bits."""
    before_ms = time.time_ns() // 1_000_000
    made = UUID(uuid7())
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert before_ms <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_ids_of_a_process_ascend_strictly() -> None:
    """Also within a millisecond, and also from several threads."""
    made = [uuid7() for _ in range(20_000)]
    assert made == sorted(set(made))
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda _: [uuid7() for _ in range(2_000)], range(4)))
    assert all(batch == sorted(batch) for batch in batches)
    assert len({job_id for batch in batches for job_id in batch}) == 8_000


def test_clock_that_goes_back_makes_no_id_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids ascend although the clock does not."""
    first = uuid7()
    clock = time.time_ns() - 3_600_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: clock)
    assert uuid7() > first


@given(st.integers(min_value=0, max_value=2**48 - 2))
def test_floor_lies_between_the_ids_of_two_moments(at_ms: int) -> None:
    """Every id of a moment is at or above its floor and below the next one's."""
    made = str(UUID(int=at_ms << 80 | 0x7 << 76 | 0b10 << 62))
    assert time_floor(at_ms) <= made < time_floor(at_ms + 1)


_FORKS = """
import os
from shared.ledger.ids import random_hex
random_hex()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, random_hex().encode())
    os._exit(0)
print(random_hex(), os.read(read, 32).decode())
"""


def test_a_forked_child_draws_its_own_random_bytes() -> None:
    """Parent and child would make the same ids from what was drawn before the fork."""
    printed = subprocess.run([sys.executable, "-c", _FORKS], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    parent, child = printed.stdout.split()
    assert len(parent) == len(child) == 32
    assert parent != child
