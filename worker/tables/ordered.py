"""Work on the pieces of a table by several threads, in order and a few pieces ahead."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

Piece = TypeVar("Piece")
Made = TypeVar("Made")


def in_order(make: Callable[[Piece], Made], pieces: Iterable[Piece], *, threads: int) -> Iterator[Made]:
    """Yield what `make` returns for each piece, in order; at most one piece more than `threads` is held at a time.

    With one thread, `make` runs where the result is taken.
    """
    if threads == 1:
        yield from map(make, pieces)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="pieces") as pool:
        for piece in pieces:
            waiting.append(pool.submit(make, piece))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
