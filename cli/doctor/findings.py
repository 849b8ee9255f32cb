"""What a check has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from shared.texts import redact


class Outcome(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"  # jobs run, but not all of them, or not for long
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    check: str
    outcome: Outcome
    message: str
    remedy: str = ""


def ok(check: str, message: str) -> Finding:
    """Return that a part is as it should be."""
    return Finding(check, Outcome.OK, redact(message))


def warn(check: str, message: str, remedy: str) -> Finding:
    """Return that a part will do, but not for everything."""
    return Finding(check, Outcome.WARN, redact(message), redact(remedy))


def fail(check: str, message: str, remedy: str) -> Finding:
    """Return that a part is wrong."""
    return Finding(check, Outcome.FAIL, redact(message), redact(remedy))


def said(failure: Exception) -> str:
    """Return what a driver or a server says, to be put before the end of a sentence."""
    return str(failure).strip().rstrip(".") or type(failure).__name__


def worst(findings: Sequence[Finding]) -> Outcome:
    """Return the outcome of all together."""
    found = {finding.outcome for finding in findings}
    return next((each for each in (Outcome.FAIL, Outcome.WARN) if each in found), Outcome.OK)
