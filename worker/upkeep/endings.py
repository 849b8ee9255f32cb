"""What the main process of a worker tells the ledger about jobs whose children cannot: that one died, or took too long.

Celery says so in the main loop, once. Told there, an error reply of the ledger would leave the job claimed by a worker
that does not run it, and a ledger that does not answer would hold up all other jobs. So the thread of the custodian
tells it, and tries again until the ledger has taken it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from shared.ledger.backend import LedgerBackend

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Ending:
    job_id: str
    tell: Callable[[LedgerBackend], object]
    is_late: bool = False  # it was refused before


class Endings:
    """The endings that the ledger has not taken yet, in order."""

    def __init__(self, backend: LedgerBackend) -> None:
        """Tell them through `backend`, whose calls must not wait for the ledger to come back."""
        self._backend = backend
        self._left: deque[_Ending] = deque()  # both threads use it: each of its operations is atomic

    def keep(self, job_id: str, tell: Callable[[LedgerBackend], object]) -> None:
        """Tell the ledger in the next round how the job ended."""
        self._left.append(_Ending(job_id, tell))

    def settle(self, running: Collection[str]) -> None:
        """Tell the ledger what it has not taken yet; stop at the first that it refuses.

        A job that is `running` here, from another message, is left until that has ended: the claim may be its own.
        """
        for _ in range(len(self._left)):
            ending = self._left.popleft()
            if ending.job_id in running:
                self._left.append(ending)
                continue
            try:
                ending.tell(self._backend)
            except (RedisError, OperationalError, OSError) as failure:
                if not ending.is_late:
                    logger.warning("%s: its end is not in the ledger yet, trying again: %r", ending.job_id, failure)
                ending.is_late = True
                self._left.append(ending)  # behind those that it may not hold up
                return
            except Exception:
                logger.exception("%s: its end cannot be told to the ledger", ending.job_id)
                continue
            if ending.is_late:
                logger.warning("%s: its end is in the ledger now", ending.job_id)
