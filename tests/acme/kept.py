"""Kinds that use what a contract says of its jobs together: how many run at once, what is old, what replaces what."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from shared.contract.definition import Concurrency, Contract, Limits, Rate, Unique
from shared.workflows import Group, Node, WorkflowContract, step
from shared.workflows.definition import GroupResult


class Served(BaseModel):
    """Who was served."""

    customer: str = Field(description="The customer.")


class ServeCustomer(
    Contract[Served],
    kind="acme.serve_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    concurrency=Concurrency(limit=1, by=["customer"]),
    examples=[{"customer": "a", "door": "/tmp/door"}],  # noqa: S108 - nobody opens it
):
    """Serve a customer when the door is open."""

    customer: str = Field(description="The customer.")
    door: str = Field(description="File that is there when the job may end.")


class AuditCustomer(
    Contract[Served],
    kind="acme.audit_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    unique=Unique(by=["customer"]),
    examples=[{"customer": "a", "door": "/tmp/door"}],  # noqa: S108 - nobody opens it
):
    """Audit a customer when the door is open; one audit of each at a time."""

    customer: str = Field(description="The customer.")
    door: str = Field(description="File that is there when the job may end.")


class DrawCustomer(
    Contract[Served],
    kind="acme.draw_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    unique=Unique(by=["customer"], meanwhile="replace"),
    deprecated="Use acme.serve_customer.",
    examples=[{"customer": "a", "door": "/tmp/door"}],  # noqa: S108 - nobody opens it
):
    """Draw a customer when the door is open; a new drawing of one replaces the one before."""

    customer: str = Field(description="The customer.")
    door: str = Field(description="File that is there when the job may end.")


class MailCustomer(
    Contract[Served],
    kind="acme.mail_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    rate="10/s",
    examples=[{"customer": "a"}],
):
    """Mail a customer; a job starts 0.1 s after another at the earliest."""

    customer: str = Field(description="The customer.")


class CallCustomer(
    Contract[Served],
    kind="acme.call_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    rate=Rate(limit="1/h", by=["customer"]),
    examples=[{"customer": "a"}],
):
    """Call a customer, each at most once an hour."""

    customer: str = Field(description="The customer.")


class WeighCustomer(
    Contract[Served],
    kind="acme.weigh_customer",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    version=3,
    replaces=["acme.measure_customer"],
    examples=[{"customer": "a", "mass_g": 70_000}],
):
    """Weigh a customer. Version 1 had `weight_kg`."""

    customer: str = Field(description="The customer.")
    mass_g: int = Field(gt=0, description="What the customer said, in grams.")

    @classmethod
    def upgrade(cls, version: int, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return grams for the kilograms of version 1; in version 2 only the texts were others."""
        if version == 1:
            parameters["mass_g"] = parameters.pop("weight_kg") * 1_000
        return parameters


class ServeAll(
    WorkflowContract[GroupResult],
    kind="acme.serve_all",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    examples=[{"customer": "a", "door": "/tmp/door"}],  # noqa: S108 - nobody opens it
):
    """Serve a customer twice, in parallel."""

    customer: str = Field(description="The customer.")
    door: str = Field(description="File that is there when the steps may end.")

    def plan(self) -> Node:
        """Return two steps side by side."""
        return Group(*(step(name, ServeCustomer(customer=self.customer, door=self.door)) for name in ("one", "two")))


class GreetPerson(
    Contract[Served],
    kind="acme.greet_person",
    queue="etl",
    limits=Limits(soft_s=60, hard_s=90),
    replaces=["acme.hail_person"],
    deprecated="Use acme.serve_customer.",
    examples=[{"customer": "a"}],
):
    """Greet a person."""

    customer: str = Field(description="The person.")
