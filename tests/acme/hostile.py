"""Bodies that say and do what no body should. docs/authors/bodies.md has the table of what becomes of each."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import redis
from celery.exceptions import Ignore, Reject

from shared.errors import TaskFailure, TransientFailure
from tests.acme.authors_contracts import Done, Misbehave
from worker.runtime.task import Run, runs

HALF = "\ud83d"  # an emoji cut in two
HOW: dict[str, Callable[[Any], Any]] = {}


@runs(Misbehave)
def misbehave(job: Misbehave, run: Run) -> Done:
    """Do what the parameter says."""
    return Done(said=str(HOW[job.how](run) or ""))


def hostile(body: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Register `body` under its name."""
    HOW[body.__name__] = body
    return body


class Textless:
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__
    __float__ = __str__


class Forgetful(TaskFailure):
    """Does not call its base class."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # nor can it be pickled


class TextlessError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@hostile
def well(run: Any) -> str:
    """Behave. Says what of the process a body before it may have changed."""
    logging.getLogger("acme").info("attempt %d behaves", run.attempt)
    usr1 = signal.getsignal(signal.SIGUSR1)
    return (
        f"{usr1 not in (signal.SIG_IGN, signal.SIG_DFL)} {Path.cwd() == Path(os.environ['PWD'])} {'ACME' in os.environ}"
    )


@hostile
def counts_in_words(run: Any) -> None:
    run.progress("three", 3)
    run.progress(None, Textless())


@hostile
def message_none(run: Any) -> None:
    run.progress(1, 3, unit=None, message=None)
    run.log(None, field=None)


@hostile
def foreign_numbers(run: Any) -> None:
    run.progress(np.float32(1.5), Decimal(3), message=np.int64(7))
    run.report()
    run.progress(np.int64(1), np.uint8(3))
    raise TaskFailure("numbers", "m", a=np.int64(5), b=np.float32(0.5), c=Decimal("1.5"), d=np.array([1, 2]), e=10**400)


@hostile
def not_finite(run: Any) -> None:
    run.progress(math.inf, math.nan)
    raise TaskFailure("nan", "m", worst=[math.nan, {"x": -math.inf}])


@hostile
def infinite_progress(run: Any) -> None:
    run.progress(1e308, 1e-308)
    run.report()
    run.progress(-5, -(10**400))


@hostile
def code_404(run: Any) -> None:
    del run
    raise TaskFailure(404, "not there")  # type: ignore[arg-type]


@hostile
def failure_of_nones(run: Any) -> None:
    del run
    raise TaskFailure(None, None, remedy=None)  # type: ignore[arg-type]


@hostile
def details_not_json(run: Any) -> None:
    del run
    circle: dict[Any, Any] = {(1, 2): {3}, b"k": Textless(), None: threading.Lock()}
    circle["self"] = circle
    raise TaskFailure("details", "m", odd=circle, deep=_nested(3_000), many=list(range(100_000)))


@hostile
def retry_after_word(run: Any) -> None:
    if run.attempt == 1:
        raise TransientFailure("later", "m", retry_after_s="0.01")  # type: ignore[arg-type]


@hostile
def retry_after_nan(run: Any) -> None:
    if run.attempt == 1:
        raise TransientFailure("later", "m", retry_after_s=math.nan)


@hostile
def retry_after_inf(run: Any) -> None:
    if run.attempt == 1:
        raise TransientFailure("later", "m", retry_after_s=math.inf)


@hostile
def retry_after_tomorrow(run: Any) -> None:
    if run.attempt == 1:
        raise TransientFailure("later", "m", retry_after_s=1e300)


@hostile
def half_an_emoji(run: Any) -> str:
    run.progress(1, message=HALF)
    run.log(HALF, **{HALF: HALF})
    return HALF


@hostile
def five_megabytes(run: Any) -> None:
    text = "a@" * 2_500_000
    run.progress(1, unit=text, message=text)
    run.log(text, text=text)
    raise TaskFailure(text, text, remedy=text, text=text)


@hostile
def forty_thousand_fields(run: Any) -> None:
    run.log("wide", **{f"field_{number}": "x" * 100 for number in range(40_000)})


@hostile
def control_characters(run: Any) -> None:
    run.log("\x1b[2J\x00a\r\nb")
    raise TaskFailure("controls", "\x1b]0;title\x07", remedy="\x9b31m")


@hostile
def forgets_super(run: Any) -> None:
    del run
    raise Forgetful


@hostile
def changes_its_failure(run: Any) -> None:
    del run
    failure = TaskFailure("changed", "m")
    failure.message = failure.details = Textless()  # type: ignore[assignment]
    failure.retryable = "yes"  # type: ignore[assignment]
    raise failure


@hostile
def error_without_text(run: Any) -> None:
    del run
    raise TextlessError


@hostile
def long_error(run: Any) -> None:
    del run
    raise ValueError("password=hunter2 " + "x" * 5_000_000)


@hostile
def raises_ignore(run: Any) -> None:
    del run
    raise Ignore


@hostile
def raises_reject(run: Any) -> None:
    del run
    raise Reject("no", requeue=True)


@hostile
def a_redis_of_its_own(run: Any) -> None:
    del run
    redis.Redis(port=1).ping()


@hostile
def publishes_twice(run: Any) -> None:
    for _ in range(2):
        (run.scratch / "a").write_text("x")
        run.publish(run.scratch / "a", name="a.txt", role="file", media_type="text/plain")


@hostile
def publishes_a_folder(run: Any) -> None:
    run.publish(run.scratch, name="a.txt", role="file", media_type="text/plain")


@hostile
def publishes_a_pipe(run: Any) -> None:
    os.mkfifo(run.scratch / "pipe")
    run.publish(run.scratch / "pipe", name="a.txt", role="file", media_type="text/plain")


@hostile
def publishes_a_header(run: Any) -> None:
    (run.scratch / "a").write_text("x")
    run.publish(run.scratch / "a", name="a.txt", role="file", media_type="text/html\r\nSet-Cookie: a=b")


@hostile
def publishes_above(run: Any) -> None:
    (run.scratch / "a").write_text("x")
    run.publish(run.scratch / "a", name="../../a.txt", role="file", media_type="text/plain")


@hostile
def tampers_with_its_artifacts(run: Any) -> None:
    run.artifacts.append("x")


@hostile
def wrecks_its_process(run: Any) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.chdir(run.scratch)
    os.environ.clear()
    os.environ["ACME"] = "changed"
    os.umask(0o777)
    sys.stdout = sys.stderr = sys.stdin = None
    sys.setrecursionlimit(150)
    logging.disable(logging.CRITICAL)
    logging.basicConfig(level=logging.CRITICAL, force=True)


def _nested(depth: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(depth):
        made = [made]
    return made
