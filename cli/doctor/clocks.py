"""Clocks of this machine, of the ledger, of gateway and workers."""

from __future__ import annotations

from cli.doctor.findings import Finding, fail, ok, warn

_TOLERATED_S = 2.0
_WRONG_S = 60.0  # signatures of callbacks, certificates and times that clients give are refused from about here on
_REMEDY = "Let NTP or chrony set the clocks of all machines."


def of_clock(check: str, name: str, ahead_s: float, uncertain_s: float = 0.0) -> Finding:
    """Return whether a clock agrees with that of this machine, which is `uncertain_s` better or worse known."""
    off_s = max(0.0, abs(ahead_s) - uncertain_s)
    if off_s <= _TOLERATED_S:
        return ok(check, f"{name} and this machine agree within {max(off_s, 0.1):.1f} s")
    said = f"The clock of {name} is {off_s:,.0f} s {'ahead' if ahead_s > 0 else 'behind'}."
    return (fail if off_s > _WRONG_S else warn)(check, said, _REMEDY)
