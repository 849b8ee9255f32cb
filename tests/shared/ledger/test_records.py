"""A field of the record is declared once: what accept writes is what a reading gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from shared.ledger.client import Ledger
from shared.ledger.records import Entry, Record
from tests.support.ledgers import entry, record, workflow

#: A value of each type that a field has; the fields that are always given have theirs.
VALUES: dict[Any, Any] = {int: 9_999_999_999_999, str: "x", bool: True, tuple: ("nightly", "team/a")}
OF_STEPS = {"job_id", "step", "after", "before", "may_fail"}


def example(name: str) -> Any:
    """Return a value for a field of this name."""
    declared = get_type_hints(Entry)[name]
    kinds = get_args(declared) if isinstance(declared, UnionType) else (declared,)
    (kind,) = {get_origin(one) or one for one in kinds} & VALUES.keys()
    return VALUES[kind]


def kept(found: Entry | Record, names: set[str]) -> dict[str, Any]:
    return {name: getattr(found, name) for name in names}


def test_every_field_that_is_written_is_read_again(accept: Callable[..., Any], ledger: Ledger) -> None:
    """Under the same name and with the same value, whatever its type; a field of an option needs no other place."""
    both = {field.name for field in fields(Entry)} & {field.name for field in fields(Record)} - {"steps"}
    job = entry()
    job = replace(job, **{name: example(name) for name in both - OF_STEPS if getattr(job, name) in {None, False, ()}})
    accept(job)
    assert kept(record(ledger, job.id), both) == kept(job, both)


def test_the_fields_of_a_step_are_read_again(accept: Callable[..., Any], ledger: Ledger) -> None:
    """With the steps before and after it, which a job of its own does not have."""
    job = workflow(["a", "b"], {"b": ["a"]})
    first, second = job.steps
    accept(replace(job, steps=(first, replace(second, may_fail=True))))
    expected = [kept(first, OF_STEPS), kept(second, OF_STEPS) | {"may_fail": True}]
    assert [kept(step, OF_STEPS) for step in record(ledger, job.id).steps] == expected


def test_what_is_not_there_is_not_written() -> None:
    """A job without wishes has no fields for them; each would cost memory in every record."""
    assert {"due_at", "schedule", "outbox", "after", "may_fail", "message"} & set(entry(message=None).record()) == set()
