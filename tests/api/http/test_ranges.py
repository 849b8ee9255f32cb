"""Range headers, as RFC 9110 and hostile clients write them."""

from __future__ import annotations

import pytest

from api.http.problems import Problem
from api.http.ranges import requested_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-", (2, 10)),
        ("bytes=2-4", (2, 5)),
        ("bytes=2-99", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-99", (0, 10)),
    ],
)
def test_one_range_is_honoured(header: str, expected: tuple[int, int]) -> None:
    """First, last, open and suffix ranges give the bytes they mean."""
    assert expected == requested_range(header, 10)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=a-b",
        "bytes=1-2,4-5",
        "bytes=" + ",".join(["0-"] * 100_000),
        "bytes=0-" + "9" * 100_000,
        "bytes=1-\u0665",
        "lines=1-2",
        "bytes=--3",
        "bytes=1-2\r\nX: y",
    ],
)
def test_what_is_not_supported_is_ignored(header: str) -> None:
    """Several ranges, other units and nonsense are answered with the whole file."""
    assert requested_range(header, 10) is None


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=10-", 10), ("bytes=11-12", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_outside_of_the_file_is_not_satisfiable(header: str, size: int) -> None:
    """416 says how large the file is."""
    with pytest.raises(Problem) as refused:
        requested_range(header, size)
    assert (refused.value.status, refused.value.headers["Content-Range"]) == (416, f"bytes */{size}")
