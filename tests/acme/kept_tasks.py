"""The tasks of `tests.acme.kept`."""

from __future__ import annotations

import time
from pathlib import Path

from tests.acme.kept import AuditCustomer, GreetPerson, ServeCustomer, Served
from worker.runtime.run import Run


@ServeCustomer.task
def serve_customer(job: ServeCustomer, run: Run) -> Served:
    """Wait until the door is open; the soft limit ends the wait."""
    while not Path(job.door).exists():
        run.report()
        time.sleep(0.02)
    return Served(customer=job.customer)


@AuditCustomer.task
def audit_customer(job: AuditCustomer, run: Run) -> Served:
    """Wait until the door is open; the soft limit ends the wait."""
    while not Path(job.door).exists():
        run.report()
        time.sleep(0.02)
    return Served(customer=job.customer)


@GreetPerson.task
def greet_person(job: GreetPerson, run: Run) -> Served:
    """Greet a person; no side effects."""
    run.log("hello")
    return Served(customer=job.customer)
