"""Expressions of filter and derive steps: a small typed tree, never a string of SQL.

If an operand is missing, most results are missing. A result that cannot be computed is missing, too: a division by
zero, or a number out of range. In a float column, not-a-number counts as missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.contract.names import ColumnName
from shared.contract.params import Component

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_EXPRESSION_DEPTH = 12  # each level costs two levels of JSON; a job's body may nest 32 deep (MAX_JSON_DEPTH)
MAX_EXPRESSION_NODES = 500

Text = Annotated[str, StringConstraints(max_length=1_000)]
Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Scalar = bool | Integer | float | Text

Comparison = Literal["eq", "ne", "lt", "le", "gt", "ge"]
DatePart = Literal["year", "quarter", "month", "week", "day", "weekday", "day_of_year", "hour", "minute", "second"]
DateUnit = Literal["year", "quarter", "month", "week", "day", "hour", "minute", "second"]


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ColumnValue(_Node):
    """The value of a column in this row."""

    op: Literal["column"] = Field(description="Discriminator.")
    name: ColumnName = Field(description="Column to read.")


class LiteralValue(_Node):
    """A fixed value. A text that is compared with a date, timestamp or time is read as one (ISO 8601)."""

    op: Literal["literal"] = Field(description="Discriminator.")
    value: Scalar | None = Field(description="Boolean, number, text, or null for a missing value.")


class Compare(_Node):
    """Compare two values of the same type; missing if either is."""

    op: Comparison = Field(description="Equal, not equal, less, less or equal, greater, greater or equal.")
    left: Expression = Field(description="Left operand.")
    right: Expression = Field(description="Right operand.")


class Between(_Node):
    """Whether a value lies between two others, both included."""

    op: Literal["between"] = Field(description="Discriminator.")
    value: Expression = Field(description="Value to test.")
    low: Expression = Field(description="Lower bound.")
    high: Expression = Field(description="Upper bound.")


class OneOf(_Node):
    """Whether a value is in a list."""

    op: Literal["in"] = Field(description="Discriminator.")
    value: Expression = Field(description="Value to test.")
    options: list[Scalar] = Field(min_length=1, max_length=1_000, description="Values that count as a match.")


class IsMissing(_Node):
    """Whether a value is missing; the answer is never missing."""

    op: Literal["is_missing"] = Field(description="Discriminator.")
    value: Expression = Field(description="Value to test.")


class Logic(_Node):
    """Whether all, or any, of the conditions are true."""

    op: Literal["and", "or"] = Field(description="`and`: all of them; `or`: any of them.")
    conditions: list[Expression] = Field(min_length=2, max_length=100, description="Boolean expressions.")


class Not(_Node):
    """Whether a condition is false."""

    op: Literal["not"] = Field(description="Discriminator.")
    condition: Expression = Field(description="Boolean expression.")


class TextTest(_Node):
    """Whether a text contains, starts with or ends with another; case-sensitive."""

    op: Literal["contains", "starts_with", "ends_with"] = Field(description="Position of the other text.")
    value: Expression = Field(description="Text to search in.")
    text: Expression = Field(description="Text to search for.")


class Arithmetic(_Node):
    """Compute with two numbers. Missing if it cannot be computed: division by zero, out of range."""

    op: Literal["add", "subtract", "multiply", "divide", "modulo"] = Field(
        description="`divide` gives a float; the sign of `modulo` is that of the left operand."
    )
    left: Expression = Field(description="Left operand.")
    right: Expression = Field(description="Right operand.")


class Absolute(_Node):
    """The absolute value of a number."""

    op: Literal["abs"] = Field(description="Discriminator.")
    value: Expression = Field(description="Number.")


class Round(_Node):
    """A number rounded half away from zero."""

    op: Literal["round"] = Field(description="Discriminator.")
    value: Expression = Field(description="Number.")
    digits: int = Field(default=0, ge=0, le=18, description="Digits after the decimal point.")


class TextFunction(_Node):
    """A text in upper or lower case, without surrounding white space, or its length in characters."""

    op: Literal["upper", "lower", "trim", "length"] = Field(description="Operation on the text.")
    value: Expression = Field(description="Text.")


class Substring(_Node):
    """Part of a text."""

    op: Literal["substring"] = Field(description="Discriminator.")
    value: Expression = Field(description="Text.")
    start: int = Field(ge=1, le=1_000_000, description="Position of the first character, counted from 1.")
    length: int | None = Field(
        default=None, ge=0, le=1_000_000, description="Number of characters; default: up to the end."
    )


class Replace(_Node):
    """A text with every occurrence of another replaced."""

    op: Literal["replace"] = Field(description="Discriminator.")
    value: Expression = Field(description="Text to change.")
    old: Text = Field(min_length=1, description="Text to replace; not a pattern.")
    new: Text = Field(description="Replacement.")


class Concat(_Node):
    """Concatenated texts; missing if any is missing. A value of another type is converted to text."""

    op: Literal["concat"] = Field(description="Discriminator.")
    values: list[Expression] = Field(min_length=1, max_length=100, description="Values to concatenate.")


class Coalesce(_Node):
    """The first of some values that is not missing."""

    op: Literal["coalesce"] = Field(description="Discriminator.")
    values: list[Expression] = Field(min_length=1, max_length=100, description="Values of the same type.")


class DatePartOf(_Node):
    """A part of a date, timestamp or time as an integer."""

    op: Literal["date_part"] = Field(description="Discriminator.")
    part: DatePart = Field(description="The part; `week` is the ISO week, `weekday` is 1 for Monday to 7 for Sunday.")
    value: Expression = Field(description="Date, timestamp or time.")


class DateTrunc(_Node):
    """The start of the period that contains a date or timestamp."""

    op: Literal["date_trunc"] = Field(description="Discriminator.")
    unit: DateUnit = Field(description="Length of the period; a week starts on Monday.")
    value: Expression = Field(
        description="Date or timestamp; the result has the same type (a date with hour: a timestamp)."
    )


class When(_Node):
    """One branch of a `case`."""

    when: Expression = Field(description="Boolean expression.")
    then: Expression = Field(description="Value where it is the first that holds.")


class Case(_Node):
    """The value of the first branch whose condition holds."""

    op: Literal["case"] = Field(description="Discriminator.")
    branches: list[When] = Field(min_length=1, max_length=100, description="Branches, tried in order.")
    otherwise: Expression | None = Field(default=None, description="Value where no condition holds; default: missing.")


Expression = Annotated[
    ColumnValue
    | LiteralValue
    | Compare
    | Between
    | OneOf
    | IsMissing
    | Logic
    | Not
    | TextTest
    | Arithmetic
    | Absolute
    | Round
    | TextFunction
    | Substring
    | Replace
    | Concat
    | Coalesce
    | DatePartOf
    | DateTrunc
    | Case,
    Field(discriminator="op"),
    Component("Expression"),
]

for _model in _Node.__subclasses__():
    _model.model_rebuild()


def children(node: BaseModel) -> Iterator[BaseModel]:
    """Yield the nodes directly below a node of an expression, in the order of its fields."""
    for name in type(node).model_fields:
        value = getattr(node, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                yield item


def _bounded(expression: Expression) -> Expression:
    level: list[BaseModel] = [expression]
    depth = nodes = 0
    while level:
        depth, nodes = depth + 1, nodes + len(level)
        if depth > MAX_EXPRESSION_DEPTH:
            raise ValueError(f"an expression is at most {MAX_EXPRESSION_DEPTH} levels deep; derive a column in between")
        if nodes > MAX_EXPRESSION_NODES:
            raise ValueError(f"an expression has at most {MAX_EXPRESSION_NODES} parts; derive a column in between")
        # A branch of a case does not count as a level: its parts belong to the case.
        below = [child for node in level for child in children(node)]
        level = [c for b in below for c in (children(b) if isinstance(b, When) else [b])]
    return expression


BoundedExpression = Annotated[Expression, AfterValidator(_bounded)]
