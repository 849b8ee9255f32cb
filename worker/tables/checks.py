"""Which types fit texts without losing anything, and how the texts become values of them."""

from __future__ import annotations

import decimal
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_EXACT_DIGITS = 15  # a decimal with this number of digits is unchanged after a conversion to float64 and back
_WIDTHS = (18, 38)  # digits that a 64 and a 128 bit decimal hold in DuckDB
_DAY = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_POWER = r"[eE][+-]?[0-9]+"
_NO_NUMBER = "x"


@dataclass(frozen=True, slots=True)
class Spelling:
    """How numbers are written: the decimal sign, and the sign between groups of three digits, if there is one."""

    decimal: str = "."
    thousands: str | None = None

    def plain(self, values: pa.Array) -> pa.Array:
        """Return numbers as they are written with a point and without groups; other texts become no number."""
        if (self.decimal, self.thousands) == (".", None):
            return values
        valid = pa.scalar(value=True)
        if self.thousands is not None:
            sign, point = re.escape(self.thousands), re.escape(self.decimal)
            grouped = pc.match_substring_regex(
                values, rf"\A[+-]?[1-9][0-9]{{0,2}}({sign}[0-9]{{3}})+({point}[0-9]*)?({_POWER})?\z"
            )
            valid = pc.or_(grouped, pc.invert(pc.match_substring(values, self.thousands)))
            values = pc.if_else(grouped, pc.replace_substring(values, self.thousands, ""), values)
        if self.decimal != ".":
            valid = pc.and_(valid, pc.invert(pc.match_substring(values, ".")))
            values = pc.replace_substring(values, self.decimal, ".")
        return pc.if_else(valid, values, _NO_NUMBER)


PLAIN = Spelling()


class Check:
    """Whether a type fits the values of a column, shown to it piece by piece, without missing ones."""

    pattern: str = r"\A"

    def __init__(self, spelling: Spelling = PLAIN) -> None:
        self.spelling = spelling
        self.seen = False

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        raise NotImplementedError

    def plain(self, values: pa.Array) -> pa.Array:
        """Return the texts as Arrow converts them."""
        return values

    def accepts(self, values: pa.Array) -> bool:
        """Return whether no value speaks against the type."""
        self.seen = True
        plain = self.plain(values)
        return bool(pc.all(pc.match_substring_regex(plain, self.pattern)).as_py()) and self.converts(plain)

    def converts(self, plain: pa.Array) -> bool:
        """Return whether texts of the right form can be converted, too."""
        try:
            pc.cast(plain, self.type)
        except pa.ArrowInvalid:
            return False
        return True

    def convert(self, values: pa.Array) -> pa.Array:
        """Return accepted texts, or missing ones, as values of the type."""
        return pc.cast(self.plain(values), self.type)

    def holds(self) -> bool:
        """Return the verdict after the last value."""
        return self.seen


class Text(Check):
    """Any text."""

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.string()


class Boolean(Check):
    """``true`` and ``false`` in any case."""

    pattern = r"(?i)\A(true|false)\z"

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.bool_()


class _Number(Check):
    def plain(self, values: pa.Array) -> pa.Array:
        """Return numbers with a point, without groups."""
        return self.spelling.plain(values)


class Integer(_Number):
    """Whole numbers of 64 bits that are written as such; with leading zeros they are codes."""

    pattern = r"\A(0|-?[1-9][0-9]{0,18})\z"

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.int64()


class _AnyInteger(Integer):
    """Whole numbers by the job's word: leading zeros and a plus sign have no meaning."""

    pattern = r"\A[+-]?[0-9]+\z"

    def plain(self, values: pa.Array) -> pa.Array:
        """Return them without what has no meaning."""
        return pc.replace_substring_regex(super().plain(values), r"\A(?:\+|(-))?0*([0-9])", r"\1\2")


class Day(Check):
    """Dates in ISO 8601 with a year of four digits."""

    pattern = rf"\A{_DAY}\z"

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.date32()


class Moment(Check):
    """Dates and times of no zone, down to microseconds."""

    pattern = rf"\A{_DAY}([ T]{_CLOCK})?\z"

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.timestamp("us")


class Instant(Check):
    """Dates and times with an offset from UTC or `Z`."""

    pattern = rf"\A{_DAY}[ T]{_CLOCK}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)\z"

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.timestamp("us", "UTC")


class Time(Check):
    """Times of the day."""

    pattern = rf"\A{_CLOCK}\z"

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.time64("us")


class Decimal(_Number):
    """Plain decimals, exact."""

    pattern = r"\A-?[0-9]+(\.[0-9]+)?\z"

    def __init__(self, spelling: Spelling = PLAIN) -> None:
        super().__init__(spelling)
        self._whole = 1
        self._scale = 0

    @property
    def type(self) -> pa.DataType:
        """The narrowest decimal that holds all values."""
        width = next((width for width in _WIDTHS if self._whole + self._scale <= width), _WIDTHS[-1])
        return pa.decimal128(width, self._scale)

    def converts(self, plain: pa.Array) -> bool:
        """Note the digits on both sides of the point and return whether 38 are enough for them."""
        point = pc.find_substring(plain, ".")
        whole = pc.utf8_length(pc.replace_substring_regex(pc.utf8_ltrim(plain, "-"), r"\..*\z", ""))
        scales = pc.subtract(pc.subtract(pc.utf8_length(plain), point), 1).filter(pc.greater_equal(point, 0))
        self._whole = max(self._whole, pc.max(whole).as_py())
        self._scale = max(self._scale, pc.max(scales).as_py() or 0)
        return self._whole + self._scale <= _WIDTHS[-1]


class _AnyDecimal(Decimal):
    """Decimals by the job's word, spelled as floats may be, but without an exponent."""

    def plain(self, values: pa.Array) -> pa.Array:
        """Return them with digits on both sides of the point, and without a plus sign."""
        unsigned = pc.replace_substring_regex(super().plain(values), r"\A\+", "")
        return pc.replace_substring_regex(pc.replace_substring_regex(unsigned, r"\A(-?)\.", r"\10."), r"\.\z", "")


class Float(_Number):
    """Numbers that a float64 holds without loss, however they are spelled; leading zeros make codes.

    `nan`, `inf` and `-inf`, as Python writes them, count as numbers beside others only.
    """

    pattern = (
        rf"\A(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:{_POWER})?|[+-]?\.[0-9]+(?:{_POWER})?"
        rf"|\+(?:0|[1-9][0-9]*)(?:\.[0-9]*(?:{_POWER})?|{_POWER})|nan|-?inf)\z"
    )

    def __init__(self, spelling: Spelling = PLAIN) -> None:
        super().__init__(spelling)
        self._any_finite = False

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.float64()

    def converts(self, plain: pa.Array) -> bool:
        """Return whether no digit is lost, and no number is too large."""
        floats = pc.cast(plain, pa.float64())
        finite = pc.is_finite(floats)
        if not pc.all(finite).as_py():
            if pc.any(pc.match_substring_regex(plain.filter(pc.invert(finite)), "[0-9]")).as_py():
                return False
            plain, floats = plain.filter(finite), floats.filter(finite)
        self._any_finite = self._any_finite or len(plain) > 0
        return self._keeps_digits(plain, floats)

    def _keeps_digits(self, plain: pa.Array, floats: pa.Array) -> bool:
        long = pc.greater(pc.binary_length(plain), _EXACT_DIGITS)
        texts, floats = plain.filter(long), floats.filter(long)
        differ = pc.not_equal(pc.cast(floats, pa.string()), texts)
        return all(map(_is_exact, texts.filter(differ).to_pylist(), floats.filter(differ).to_pylist()))

    def holds(self) -> bool:
        """Return the verdict after the last value."""
        return self._any_finite


class _AnyFloat(Float):
    """Numbers by the job's word, rounded to a float64; as Python and others spell them."""

    pattern = rf"(?i)\A[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:{_POWER})?|nan|inf(?:inity)?)\z"

    def _keeps_digits(self, plain: pa.Array, floats: pa.Array) -> bool:  # noqa: ARG002 - the job wants a float
        return True

    def holds(self) -> bool:
        """Return the verdict after the last value."""
        return self.seen


ANY_INTEGER, ANY_DECIMAL, ANY_FLOAT = _AnyInteger, _AnyDecimal, _AnyFloat


def _is_exact(text: str, number: float) -> bool:
    """Return whether `text` has at most 15 digits, or is the shortest or the 17-digit spelling of `number`."""
    written = decimal.Decimal(text)
    if len("".join(map(str, written.as_tuple().digits)).strip("0")) <= _EXACT_DIGITS:
        return True
    return written in (decimal.Decimal(repr(number)), decimal.Decimal(f"{number:.17g}"))
