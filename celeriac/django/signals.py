"""Django signals: what became of a job. `sender` is the model `Job`; receivers get `job`.

    @receiver(job_succeeded)
    def send_invoice(job, **_): ...

Receivers run in the transaction that writes the state. If one raises, nothing is written, and the callback is sent
again: what they write to the same database is written once.
"""

from __future__ import annotations

from django.dispatch import Signal

from shared.ledger.states import State

job_succeeded = Signal()
job_failed = Signal()
job_cancelled = Signal()
job_expired = Signal()
job_quarantined = Signal()
job_refused = Signal()  # the gateway did not accept it; `job.error` says why

OF_STATE = {
    State.SUCCEEDED: job_succeeded,
    State.FAILED: job_failed,
    State.CANCELLED: job_cancelled,
    State.EXPIRED: job_expired,
    State.QUARANTINED: job_quarantined,
}
