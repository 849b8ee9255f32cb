"""The tasks of `tests.acme.kept`."""

from __future__ import annotations

import time
from pathlib import Path

from tests.acme.kept import (
    AuditCustomer,
    CallCustomer,
    DrawCustomer,
    GreetPerson,
    MailCustomer,
    ServeCustomer,
    Served,
    WeighCustomer,
)
from worker.runtime.run import Run


@ServeCustomer.task
def serve_customer(job: ServeCustomer, run: Run) -> Served:
    """Wait until the door is open; the soft limit ends the wait."""
    _wait_at(job.door, run)
    return Served(customer=job.customer)


@AuditCustomer.task
def audit_customer(job: AuditCustomer, run: Run) -> Served:
    """Wait until the door is open; the soft limit ends the wait."""
    _wait_at(job.door, run)
    return Served(customer=job.customer)


@DrawCustomer.task
def draw_customer(job: DrawCustomer, run: Run) -> Served:
    """Wait until the door is open; a cancellation ends the wait, and then there is something to tidy up."""
    try:
        _wait_at(job.door, run)
    finally:
        time.sleep(0.2)
    return Served(customer=job.customer)


@MailCustomer.task
def mail_customer(job: MailCustomer, run: Run) -> Served:
    """Mail a customer; no side effects."""
    run.log("mailed")
    return Served(customer=job.customer)


@CallCustomer.task
def call_customer(job: CallCustomer, run: Run) -> Served:
    """Call a customer; no side effects."""
    run.log("called")
    return Served(customer=job.customer)


@WeighCustomer.task
def weigh_customer(job: WeighCustomer, run: Run) -> Served:
    """Weigh a customer; no side effects."""
    run.log("weighed")
    return Served(customer=f"{job.customer}: {job.mass_g} g")


@GreetPerson.task
def greet_person(job: GreetPerson, run: Run) -> Served:
    """Greet a person; no side effects."""
    run.log("hello")
    return Served(customer=job.customer)


def _wait_at(door: str, run: Run) -> None:
    while not Path(door).exists():
        run.report()
        time.sleep(0.02)
