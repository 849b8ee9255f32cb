"""What a contract says of its kind: limits, retry policy and the other class keywords."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from shared.contract.artifacts import Role, role_name
from shared.contract.names import Matching
from shared.contract.options import MAX_RUNNING_PER_KEY, YEAR_S
from shared.contract.spelling import did_you_mean
from shared.errors import DefinitionError

KIND_PATTERN = r"^[a-z][a-z0-9]*\.[a-z][a-z0-9_]*$"
MAX_KIND_LENGTH = 128
_MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000}
_LEAST_INTERVAL_MS = 10
_SHOWN = 40  # characters of a value in a message

Fault = tuple[str, str]  # what is wrong with a definition, and what to do about it


class _Policy(BaseModel):
    """Base of the values of class keywords; a wrong one is refused with how to write it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    written: ClassVar[str]

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_with_a_hint(cls, given: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, dict):
            return validate(given)
        try:
            return validate(given)
        except ValidationError as invalid:
            wrong = " ".join(f"{_in_words(error)}." for error in invalid.errors(include_url=False))
            raise DefinitionError(f"{cls.__name__}: {wrong} Write {cls.written}.") from None


class Limits(_Policy):
    """Time limits of one attempt at a job, in seconds."""

    written = "Limits(soft_s=50, hard_s=60), in seconds, the soft limit below the hard one, at most a year"

    soft_s: float = Field(gt=0, le=YEAR_S, description="After this the body is interrupted and may clean up.")
    hard_s: float = Field(gt=0, le=YEAR_S, description="After this the worker's child process is killed.")

    def within(self, hard_s: float) -> Limits:
        """Return limits with `hard_s` as the hard limit, if that is lower, and less time to clean up before it."""
        if hard_s >= self.hard_s:
            return self
        to_clean_up_s = min(self.hard_s - self.soft_s, hard_s / 10)
        return Limits(soft_s=hard_s - to_clean_up_s, hard_s=hard_s)


class Retry(_Policy):
    """Retry policy for transient failures: exponential backoff with full jitter.

    The wait before retry *n* (from 1) is uniform in 0 .. min(`backoff_max_s`, `backoff_s` * 2**(n-1)), see
    "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    written = "Retry(max_retries=3, backoff_s=1, backoff_max_s=300): at most 100 retries, the waits in seconds"

    max_retries: int = Field(default=3, ge=0, le=100, description="Retries after the first attempt.")
    backoff_s: float = Field(default=1.0, gt=0, le=YEAR_S, description="Upper bound of the first wait in seconds.")
    backoff_max_s: float = Field(default=300.0, gt=0, le=YEAR_S, description="Upper bound of any wait in seconds.")


class Concurrency(_Policy):
    """How many jobs of a kind run at once: of all, or of each value of the parameters `by`. The others wait."""

    written = "Concurrency(limit=2), or Concurrency(limit=1, by=['customer']): at most this number runs at once"

    limit: int = Field(ge=1, le=MAX_RUNNING_PER_KEY, description="Maximum number of running jobs.")
    by: Sequence[str] = Field(default=(), description="Parameters; jobs with other values do not count.")


def _interval_ms(rate: str) -> int:
    starts, _, of = rate.partition("/")
    return math.ceil(_MILLISECONDS[of] / int(starts))


def _slow_enough(rate: str) -> str:
    if _interval_ms(rate) < _LEAST_INTERVAL_MS:
        raise ValueError("it is more than 100 starts a second")
    return rate


class Rate(_Policy):
    """How often the jobs of a kind start: of all, or of each value of the parameters `by`. The others wait.

    It holds for all workers together. The starts are evenly spaced: `100/m` is one every 0.6 s, and a start that comes
    late is not made up for. Each attempt is a start.
    """

    written = "Rate(limit='100/m'), or Rate(limit='10/s', by=['shop']): at most this number of starts, 1/h to 100/s"

    limit: Annotated[
        str,
        Matching("[1-9][0-9]{0,5}/[smh]", "a whole number, '/', and s, m or h: second, minute or hour"),
        AfterValidator(_slow_enough),
    ] = Field(description="Maximum number of starts in a second, minute or hour.", examples=["100/m"])
    by: Sequence[str] = Field(default=(), description="Parameters; jobs with other values do not count.")

    @property
    def interval_ms(self) -> int:
        """The time from one start to the next, in milliseconds."""
        return _interval_ms(self.limit)


class Unique(_Policy):
    """At most one job of a kind that has not ended: of all, or of each value of the parameters `by`.

    A submission `meanwhile` is skipped: it makes no job, and its answer is the job that there is. Or it replaces that
    job: it cancels it, and makes one that starts when that has ended.
    """

    written = "Unique(), or Unique(by=['customer'], meanwhile='replace'): at most one job that has not ended"

    by: Sequence[str] = Field(default=(), description="Parameters; jobs with other values do not count.")
    meanwhile: Literal["skip", "replace"] = Field(
        default="skip", description="Whether a submission meanwhile makes no job, or cancels the one that there is."
    )


def _rate(given: Any) -> Any:
    return Rate(limit=given) if isinstance(given, str) else given


@dataclass(frozen=True, slots=True)
class FedFromUpstream:
    """Marks a parameter that takes the uri of an upstream result's artifact of this role, unless a value is given.

    The role is one of the service's own, or what `role` returned.
    A parameter of a list type takes the uris of all upstream results; any other takes the uri of the only one.
    Raises `DefinitionError` for an unknown role.
    """

    role: Role

    def __post_init__(self) -> None:
        try:
            role_name(self.role)
        except ValueError as unknown:
            raise DefinitionError(f"FedFromUpstream: {unknown}") from None


class Spec(BaseModel):
    """The class keywords of a contract, its result and its docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: Annotated[
        str, Matching(KIND_PATTERN[1:-1], "of the form family.verb_noun in lower case, like 'etl.extract_data'")
    ] = Field(max_length=MAX_KIND_LENGTH, examples=["kind='acme.shout_text'"])
    family: Annotated[str, Matching(r"[a-z][a-z0-9]*", "lower-case letters and digits")] = Field(
        examples=["family='acme', or leave it out"]
    )
    queue: str = Field(examples=["queue='etl'"])
    limits: Limits = Field(examples=["limits=Limits(soft_s=50, hard_s=60)"])
    retry: Retry = Field(default=Retry(), examples=["retry=Retry(max_retries=3)"])
    max_crashes: int = Field(default=3, ge=1, le=100, examples=["max_crashes=3"])
    idempotent_by: Sequence[str] = Field(default=(), examples=["idempotent_by=('order_id',), the names of parameters"])
    concurrency: Concurrency | None = Field(
        default=None, examples=["concurrency=Concurrency(limit=1, by=['customer'])"]
    )
    rate: Annotated[Rate | None, BeforeValidator(_rate)] = Field(
        default=None, examples=["rate='100/m', or rate=Rate(limit='100/m', by=['customer'])"]
    )
    unique: Unique | None = Field(default=None, examples=["unique=Unique(by=['customer'])"])
    version: int = Field(default=1, ge=1, le=1_000_000, examples=["version=2"])
    processes: int | None = Field(default=None, ge=1, le=1_000, examples=["processes=2"])
    deprecated: Annotated[str, Matching("[ -~]*", "one line of ASCII, as it goes into a header")] = Field(
        default="", max_length=500, examples=["deprecated='Use acme.shout_loudly.'"]
    )
    internal: bool = Field(default=False, examples=["internal=True"])
    replaces: Sequence[Annotated[str, Matching(KIND_PATTERN[1:-1], "the old kinds, like 'acme.old_name'")]] = Field(
        default=(), examples=["replaces=['acme.old_name']"]
    )
    examples: Sequence[Mapping[str, Any]] = Field(
        default=(), examples=["examples=[{'text': 'hello'}], a list of valid parameters"]
    )
    result: type[BaseModel]
    summary: str
    description: str


def refuse(defined: Any, faults: Iterable[Fault]) -> None:
    """Raise `DefinitionError` with all `faults` of what was defined, a class or a function, if there are any."""
    if found := list(faults):
        raise refusal(defined, found)


def refusal(defined: Any, faults: Iterable[Fault]) -> DefinitionError:
    """Return the error that names what was defined, and its faults."""
    name = f"{defined.__module__}.{defined.__qualname__}"
    return DefinitionError("\n".join(f"{name}: {what}. {hint}" for what, hint in faults))


def faults_in(keywords: Mapping[str, Any], invalid: ValidationError) -> Iterator[Fault]:
    """Yield what Pydantic found wrong in class keywords, with how each is written."""
    for error in invalid.errors(include_url=False):
        keyword = str(error["loc"][0])
        if error["type"] == "extra_forbidden":
            yield f"there is no class keyword {keyword!r}", _meant(keyword)
            continue
        (written,) = Spec.model_fields[keyword].examples or [keyword]
        if error["type"] == "missing":  # only `limits` can be
            yield "it has no hard time limit", f"Add {written}."
        elif keyword in keywords:
            yield _in_words({**error, "input": keywords[keyword]}), f"Write {written}."


def _meant(keyword: str) -> str:
    for within, policy in (("limits", Limits), ("retry", Retry)):
        if keyword in policy.model_fields:
            return f"It is a part of {within}: {within}={policy.written}."
    return did_you_mean(keyword, [name for name, field in Spec.model_fields.items() if field.examples])


def _in_words(error: Mapping[str, Any]) -> str:
    name, what = ".".join(map(str, error["loc"][:1])), str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{name!r} is not a part of it"
    if error["type"] == "missing":
        return f"{name!r} is missing"
    given = repr(error["input"])
    short = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}..."
    return f"{name}={short}: {what[0].lower()}{what[1:]}"
