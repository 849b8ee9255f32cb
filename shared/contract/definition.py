"""The contract: the class that defines a kind of job for gateway, workers, OpenAPI document and form.

    class Shout(Contract[Shouted], kind="acme.shout_text", queue="etl", limits=Limits(soft_s=50, hard_s=60),
                examples=[{"text": "hello"}]):
        '''Return the text in capitals.'''

        text: str = Field(description="What to shout.", max_length=1_000)

A wrong definition fails when the module is imported, and the error says how to fix it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.contract.artifacts import Role
from shared.contract.families import FAMILIES
from shared.errors import DefinitionError

KIND_PATTERN = r"^[a-z][a-z0-9]*\.[a-z][a-z0-9_]*$"
MAX_JSON_DEPTH = 32

ResultT = TypeVar("ResultT", bound=BaseModel)


class Limits(BaseModel):
    """Time limits of one attempt at a job, in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    soft_s: float = Field(gt=0, description="After this the body is interrupted and may clean up.")
    hard_s: float = Field(gt=0, description="After this the worker's child process is killed.")


class Retry(BaseModel):
    """Retry policy for transient failures: exponential backoff with full jitter.

    The wait before retry *n* (from 1) is uniform in 0 .. min(`backoff_max_s`, `backoff_s` * 2**(n-1)), see
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_retries: int = Field(default=3, ge=0, le=100, description="Retries after the first attempt.")
    backoff_s: float = Field(default=1.0, gt=0, description="Upper bound of the first wait in seconds.")
    backoff_max_s: float = Field(default=300.0, gt=0, description="Upper bound of any wait in seconds.")


@dataclass(frozen=True, slots=True)
class FedFromUpstream:
    """Marks a parameter that takes the uri of an upstream result's artifact of this role, unless a value is given.

    A parameter of a list type takes the uris of all upstream results; any other takes the uri of the only one.
    """

    role: Role


@dataclass(frozen=True)
class Spec:
    """The class keywords of a contract."""

    kind: str
    family: str  # a worker loads whole families
    queue: str
    limits: Limits
    retry: Retry
    max_crashes: int
    idempotent_by: tuple[str, ...]
    examples: tuple[Mapping[str, Any], ...]
    result: type[BaseModel]
    summary: str
    description: str


class Contract(BaseModel, Generic[ResultT]):
    """Base of all contracts: its fields are the job's parameters, its type argument is the result.

    Class keywords:
        kind: stable name `family.verb_noun`; also the Celery task name. Never renamed.
        family: whose workers run it; default is the part of the kind before the dot.
        queue: where its messages go; default is the family.
        limits: soft and hard time limit. Required: a job without a limit can hang for ever.
        retry: policy for transient failures.
        max_crashes: number of worker crashes after which it is quarantined.
        idempotent_by: parameters that make up the idempotency key of its side effects; default: the job's id.
        examples: valid parameters, at least one; they are tested and shown in the document.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    spec: ClassVar[Spec]

    def __init_subclass__(
        cls,
        *,
        kind: str | None = None,
        family: str | None = None,
        queue: str | None = None,
        limits: Limits | None = None,
        retry: Retry | None = None,
        max_crashes: int = 3,
        idempotent_by: Sequence[str] = (),
        examples: Sequence[Mapping[str, Any]] = (),
        **config: Any,
    ) -> None:
        """Accept the class keywords; they are read once Pydantic has built the fields."""
        super().__init_subclass__(**config)

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        kind: str | None = None,
        family: str | None = None,
        queue: str | None = None,
        limits: Limits | None = None,
        retry: Retry | None = None,
        max_crashes: int = 3,
        idempotent_by: Sequence[str] = (),
        examples: Sequence[Mapping[str, Any]] = (),
        **config: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**config)
        if kind is None:
            return  # Contract[SomeResult] itself, or a base that adds shared fields
        if limits is None:
            _refuse(cls, "it has no hard time limit", "Add limits=Limits(soft_s=..., hard_s=...).")
        summary, _, description = (cls.__doc__ or "").strip().partition("\n")
        family = family or kind.partition(".")[0]
        cls.spec = Spec(
            kind=kind,
            family=family,
            queue=queue or family,
            limits=limits,
            retry=retry or Retry(),
            max_crashes=max_crashes,
            idempotent_by=tuple(idempotent_by),
            examples=tuple(examples),
            result=_type_argument(cls),
            summary=summary.strip(),
            description=_dedent(description),
        )
        for what, hint in _faults(cls):
            _refuse(cls, what, hint)
        _kinds[kind] = cls

    @classmethod
    def fed_parameters(cls) -> dict[str, FedFromUpstream]:
        """Return the parameters that upstream steps can feed, with their markers."""
        return {
            name: marker
            for name, field in cls.model_fields.items()
            for marker in field.metadata
            if isinstance(marker, FedFromUpstream)
        }

    def idempotency_key(self, job_id: str) -> str:
        """Return the key by which a retry recognises side effects that are already done."""
        fields = self.spec.idempotent_by
        if not fields:
            return job_id
        chosen = self.model_dump(mode="json", include=set(fields))
        canonical = json.dumps([self.spec.kind, chosen], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


AnyContract = type[Contract[Any]]


def known_queues() -> tuple[str, ...]:
    """Return the queues that a contract may name: one per family, and those in `CELERIAC_QUEUES`."""
    extra = (name.strip() for name in os.environ.get("CELERIAC_QUEUES", "").split(","))
    return (*FAMILIES, *(name for name in extra if name and name not in FAMILIES))


_kinds: dict[str, AnyContract] = {}


def _faults(cls: AnyContract) -> Iterator[tuple[str, str]]:
    """Yield each problem of a contract with its remedy."""
    spec = cls.spec
    if not re.match(KIND_PATTERN, spec.kind):
        yield f"the kind {spec.kind!r} is not of the form family.verb_noun", "Use lower case, like 'etl.extract_data'."
    known = _kinds.get(spec.kind)
    if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        yield (
            f"the kind {spec.kind!r} is already defined by {known.__module__}.{known.__qualname__}",
            "Kinds are unique and never renamed; choose another verb_noun.",
        )
    if spec.queue not in known_queues():
        yield (
            f"the queue {spec.queue!r} is unknown",
            f"Use one of {', '.join(known_queues())}, or add it to CELERIAC_QUEUES of gateway and workers.",
        )
    if spec.limits.soft_s >= spec.limits.hard_s:
        yield (
            "its soft limit is not below its hard limit",
            "Lower the soft limit, so that the body has time to clean up.",
        )
    if not spec.summary:
        yield "it has no docstring", "Add one; its first line is the summary in the OpenAPI document."
    if unknown := set(spec.idempotent_by) - set(cls.model_fields):
        yield f"idempotent_by names {sorted(unknown)}", f"Use only its parameters: {sorted(cls.model_fields)}."
    for path in (*_undescribed(cls), *_undescribed(spec.result)):
        yield f"the field {path} has no description", 'Add Field(description="...") with range and unit.'
    yield from _example_faults(cls)


def _example_faults(cls: AnyContract) -> Iterator[tuple[str, str]]:
    spec = cls.spec
    if not spec.examples:
        yield "it has no example", "Add examples=[{...}] with valid parameters."
    for index, example in enumerate(spec.examples):
        try:
            cls.model_validate_json(json.dumps(example))
        except ValidationError as invalid:
            yield f"example {index} is not valid: {invalid}", "Fix the example or the field."


def _refuse(cls: type, what: str, hint: str) -> typing.NoReturn:
    raise DefinitionError(f"{cls.__module__}.{cls.__qualname__}: {what}. {hint}")


def _type_argument(cls: type[BaseModel]) -> type[BaseModel]:
    for base in cls.__mro__:
        generic = getattr(base, "__pydantic_generic_metadata__", None) or {}
        origin = generic.get("origin")
        if isinstance(origin, type) and issubclass(origin, Contract):
            (argument,) = generic["args"]
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                return argument
    _refuse(cls, "it has no result type", "Derive it from Contract[YourResult].")


def _undescribed(model: type[BaseModel], seen: set[type] | None = None) -> Iterator[str]:
    """Yield the dotted paths of fields without a description, also in nested models, each visited once."""
    seen = {model} if seen is None else seen
    for name, field in model.model_fields.items():
        if not field.description:
            yield f"{model.__name__}.{name}"
        if field.annotation is Any:
            yield f"{model.__name__}.{name} (a field of any type cannot be described; give it a type)"
        for nested in _models_in(field.annotation):
            if nested not in seen:
                seen.add(nested)
                yield from _undescribed(nested, seen)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _dedent(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
