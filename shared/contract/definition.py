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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.contract.checking.fields import (
    name_faults,
    parameter_faults,
    result_examples,
    result_faults,
    unresolved_faults,
)
from shared.contract.checking.journey import MAX_JSON_DEPTH, ExampleFault, arrive, come_back
from shared.contract.families import FAMILIES
from shared.contract.installed import KINDS, installed, named_in
from shared.contract.spec import (
    KIND_PATTERN,
    Concurrency,
    Fault,
    FedFromUpstream,
    Limits,
    Rate,
    Retry,
    Spec,
    Unique,
    faults_in,
    refusal,
    refuse,
)
from shared.contract.tasks import declare

__all__ = [
    "KIND_PATTERN",
    "MAX_JSON_DEPTH",
    "AnyContract",
    "Concurrency",
    "Contract",
    "FedFromUpstream",
    "Limits",
    "Rate",
    "ResultT",
    "Retry",
    "Spec",
    "Unique",
    "known_queues",
]

ResultT = TypeVar("ResultT", bound=BaseModel)
RunT = TypeVar("RunT")  # the worker's Run, which contracts do not import


if TYPE_CHECKING:
    unless_a_parameter = classmethod
else:

    class unless_a_parameter(classmethod):  # noqa: N801 - it is used like the builtin that it extends
        """A class method that is not there where a parameter has its name: Pydantic would take it for the default."""

        def __get__(self, instance: Any, owner: type) -> Any:
            name = self.__func__.__name__
            if any(name in vars(base).get("__annotations__", ()) for base in owner.__mro__):
                raise AttributeError(f"{owner.__name__}.{name} is a parameter, so there is no method {name}")
            return super().__get__(instance, owner)


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
        version: number of this form of the parameters, from 1; see `upgrade`.
        processes: how many processes a worker of its queue has, if the queue is its own; default: one per processor.
        concurrency: how many of its jobs run at once, by kind or by the values of parameters; the others wait.
        rate: how often its jobs start, by kind or by the values of parameters, like `100/m`; the others wait.
        unique: at most one job that has not ended, by kind or by the values of parameters; another is not accepted, or
            replaces it.
        deprecated: what to use instead; shown in the document and in the answer to each submission.
        internal: whether it is only a step of workflows: not in the document, as nobody submits it by itself.
        replaces: old kinds whose waiting messages, schedules, submissions and reruns run on this contract.
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
        max_crashes: int | None = None,
        idempotent_by: Sequence[str] = (),
        version: int | None = None,
        processes: int | None = None,
        concurrency: Concurrency | None = None,
        rate: Rate | str | None = None,
        unique: Unique | None = None,
        deprecated: str = "",
        internal: bool = False,
        replaces: Sequence[str] = (),
        examples: Sequence[Mapping[str, Any]] = (),
        **misspelt: Any,  # what is not a keyword is refused below
    ) -> None:
        """Accept the class keywords; they are read once Pydantic has built the fields."""
        super().__init_subclass__()
        refuse(cls, name_faults(cls, vars(cls).get("__annotations__", ())))  # Pydantic only warns of them

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        """Check the definition, and make it known under its kind. Raises `DefinitionError`."""
        super().__pydantic_init_subclass__()
        if not keywords and not hasattr(cls, "spec"):
            return  # Contract[SomeResult] itself, or a base that adds shared fields
        if "kind" not in keywords:
            refuse(cls, [("it has no kind", "Add kind='family.verb_noun'; a class for shared fields has no keywords.")])
        cls.spec = _spec_of(cls, keywords)
        for faults in (_definition_faults, _field_faults, _example_faults):
            refuse(cls, faults(cls))
        _kinds.update(dict.fromkeys((cls.spec.kind, *cls.spec.replaces), cls))

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

    @unless_a_parameter
    def task(cls, body: Callable[[Self, RunT], ResultT]) -> Callable[[Self, RunT], ResultT]:  # noqa: N805 - a class method
        """Declare that the decorated function runs this contract; return it unchanged, so that a test can call it.

            @ShoutText.task
            def shout_text(job: ShoutText, run: Run) -> Shouted: ...

        Type checkers compare job and result with the contract. Raises `DefinitionError` if the function cannot run it.
        A contract with a parameter `task` does not have it: use `@runs`, which does the same.
        """
        cls.declare_task(body)
        return body

    @classmethod
    def declare_task(cls, body: Callable[[Self, RunT], ResultT]) -> None:
        """Declare that `body` runs this contract. Raises `DefinitionError`, see `task`."""
        if "spec" not in vars(cls):
            raise refusal(body, [(f"{cls.__name__} has no kind, so it has no task", "Give it the class keyword kind.")])
        declare(cls, cls.spec, body)

    @unless_a_parameter
    def upgrade(cls, version: int, parameters: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002, N805 - a class method
        """Return the parameters of a job that was accepted under an earlier `version`, in the form of this one.

        A worker calls it before it checks them, and the gateway for a rerun. By default they stay as they are.
        """
        return parameters

    @classmethod
    def _keyword_faults(cls) -> Iterator[Fault]:
        """Yield why jobs of this sort cannot have what its class keywords say."""
        yield from ()

    def _faults_when_run(self) -> Iterator[Fault]:
        """Yield why a job with these parameters could not run, beyond its schema."""
        yield from ()


AnyContract = type[Contract[Any]]


def known_queues() -> tuple[str, ...]:
    """Return the queues that a contract may name: one per family, also of installed ones, and `CELERIAC_QUEUES`."""
    return tuple(dict.fromkeys((*FAMILIES, *installed(KINDS), *named_in("CELERIAC_QUEUES"))))


_kinds: dict[str, AnyContract] = {}
_too_early: set[AnyContract] = set()  # to check examples with: see `check_rest`


def _spec_of(cls: AnyContract, keywords: Mapping[str, Any]) -> Spec:
    given = {name: value for name, value in keywords.items() if value is not None}
    family = given.get("family", str(given["kind"]).partition(".")[0])
    defaults = {"family": family, "queue": family}
    summary, _, description = (cls.__doc__ or "").strip().partition("\n")
    try:
        spec = Spec(
            result=_type_argument(cls), summary=summary.strip(), description=_dedent(description), **(defaults | given)
        )
    except ValidationError as invalid:
        raise refusal(cls, faults_in(given, invalid)) from None
    if spec.unique is None or spec.unique.meanwhile != "replace":
        return spec
    return _one_after_the_other(cls, spec, by=spec.unique.by)


def _one_after_the_other(cls: AnyContract, spec: Spec, *, by: Sequence[str]) -> Spec:
    """Return the spec of a kind whose jobs replace each other: each runs when the one before it has ended."""
    if spec.concurrency is not None:
        what = "its jobs replace each other, so that one of them runs at a time, and it has a concurrency of its own"
        raise refusal(cls, [(what, "Leave concurrency out.")])
    return spec.model_copy(update={"concurrency": Concurrency(limit=1, by=by)})


def _definition_faults(cls: AnyContract) -> Iterator[Fault]:
    spec = cls.spec
    known = _kinds.get(spec.kind)
    if known is not None and not _is_same(known, cls):
        yield (
            f"the kind {spec.kind!r} is already defined by {known.__module__}.{known.__qualname__}",
            "Kinds are unique and never renamed; choose another verb_noun.",
        )
    if spec.queue not in known_queues():
        yield (
            f"the queue {spec.queue!r} is unknown",
            f"Use one of {', '.join(known_queues())}, or add it to CELERIAC_QUEUES of gateway and workers.",
        )
    yield from _processes_faults(cls)
    if spec.limits.soft_s >= spec.limits.hard_s:
        yield (
            "its soft limit is not below its hard limit",
            "Lower the soft limit, so that the body has time to clean up.",
        )
    if not spec.summary:
        yield "it has no docstring", "Add one; its first line is the summary in the OpenAPI document."
    yield from _parameter_name_faults(cls)
    if spec.version == 1 and "upgrade" in vars(cls) and "upgrade" not in cls.model_fields:
        yield "it has upgrade(), and is of version 1, before which there is none", "Set version=2."
    yield from cls._keyword_faults()
    for old in spec.replaces:
        taken = _kinds.get(old)
        if taken is not None and not _is_same(taken, cls):
            yield (
                f"it replaces {old!r}, which {taken.__module__}.{taken.__qualname__} defines",
                "Delete the old contract.",
            )
    yield from name_faults(cls, cls.model_fields)
    if spec.result is BaseModel:
        yield "its result is BaseModel itself, which has no fields", "Derive a class from it with the result's fields."
        return
    yield from unresolved_faults(cls)
    yield from unresolved_faults(spec.result)


def _parameter_name_faults(cls: AnyContract) -> Iterator[Fault]:
    spec = cls.spec
    if spec.internal and spec.unique is not None:
        yield "it is internal and unique, but only submissions are unique", "Use concurrency=Concurrency(limit=1)."
    named = {
        "idempotent_by": spec.idempotent_by,
        "concurrency": _by(spec.concurrency),
        "rate": _by(spec.rate),
        "unique": _by(spec.unique),
    }
    for keyword, names in named.items():
        if unknown := set(names) - set(cls.model_fields):
            yield f"{keyword} names {sorted(unknown)}", f"Use only its parameters: {sorted(cls.model_fields)}."


def _processes_faults(cls: AnyContract) -> Iterator[Fault]:
    spec = cls.spec
    if spec.processes is None:
        return
    if spec.queue in FAMILIES:
        yield (
            f"it sets processes={spec.processes}, and its queue {spec.queue!r} is the service's",
            "Give it a queue of its own, or leave processes out.",
        )
    for other in {kind.spec.kind: kind for kind in _kinds.values() if not _is_same(kind, cls)}.values():
        if other.spec.queue == spec.queue and other.spec.processes not in {None, spec.processes}:
            yield (
                f"it sets processes={spec.processes}, and {other.spec.kind}, of its queue, {other.spec.processes}",
                "Set the same number in both, or give one another queue.",
            )


def _is_same(one: type, other: type) -> bool:
    """Return whether a class is the other, or was before its module was loaded again."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _by(policy: Concurrency | Rate | Unique | None) -> Sequence[str]:
    return policy.by if policy is not None else ()


def _field_faults(cls: AnyContract) -> Iterator[Fault]:
    yield from parameter_faults(cls, Contract)
    yield from result_faults(cls.spec.result)


def check_rest(contract: AnyContract) -> None:
    """Check the examples with which it was too early when the class was defined. Raises `DefinitionError`."""
    if contract in _too_early:
        refuse(contract, _example_faults(contract, early=False))
        _too_early.discard(contract)


def _example_faults(cls: AnyContract, *, early: bool = True) -> Iterator[Fault]:
    if not cls.spec.examples:
        yield "it has no example", "Add examples=[{...}] with valid parameters."
    trials: list[tuple[str, Callable[[], Iterable[Fault]]]] = [
        (f"example {index}", partial(_faults_of_job, cls, example)) for index, example in enumerate(cls.spec.examples)
    ]
    trials += [
        (f"example {index} of {model.__name__}", partial(_faults_of_result, model, example))
        for model, index, example in result_examples(cls.spec.result)
    ]
    for name, trial in trials:
        try:
            faults = list(trial())
        except ExampleFault as wrong:
            faults = [wrong.fault]
        except NameError as missing:  # a function that its module may define further down
            if early:
                _too_early.add(cls)
                continue
            faults = [(f"raises NameError: {missing}", "Define or import it.")]
        yield from ((f"{name} {what}", hint) for what, hint in faults)


def _faults_of_job(cls: AnyContract, example: Mapping[str, Any]) -> Iterator[Fault]:
    return arrive(cls, example)._faults_when_run()  # noqa: SLF001 - each contract says it of itself


def _faults_of_result(model: type[BaseModel], example: Any) -> Iterable[Fault]:
    come_back(model, example)
    return ()


def _type_argument(cls: type[BaseModel]) -> type[BaseModel]:
    for base in cls.__mro__:
        generic = getattr(base, "__pydantic_generic_metadata__", None) or {}
        origin = generic.get("origin")
        if isinstance(origin, type) and issubclass(origin, Contract):
            (argument,) = generic["args"]
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                return argument
    hint = "Derive it from Contract[YourResult], where YourResult is a BaseModel that is defined above it."
    raise refusal(cls, [("it has no result type", hint)])


def _dedent(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())
