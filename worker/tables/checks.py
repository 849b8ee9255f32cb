"""Which types fit texts without losing anything, and how the texts become values of them."""

from __future__ import annotations

import decimal
import re
import sys
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_EXACT_DIGITS = 15  # a decimal with this number of digits is unchanged after a conversion to float64 and back
_WIDTHS = (18, 38)  # digits that a 64 and a 128 bit decimal hold in DuckDB
_DAY = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_POWER = r"[eE][+-]?[0-9]+"
_NO_NUMBER = "x"
_DAY_CHARACTERS = 10
_OFFSET_BYTES = 4


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
        return self.converted(values) is not None

    def converted(self, values: pa.Array) -> pa.Array | None:
        """Return the texts as values of the type, missing ones too; None if one speaks against the type."""
        if values.null_count < len(values):
            self.seen = True
        plain = self.plain(values)
        return self.exact(plain) if self.is_spelled(plain) else None

    def is_spelled(self, plain: pa.Array) -> bool:
        """Return whether the texts have the form of the type."""
        return bool(pc.all(pc.match_substring_regex(plain, self.pattern), min_count=0).as_py())

    def exact(self, plain: pa.Array) -> pa.Array | None:
        """Return texts of the right form as values of the type; None if one is none, such as the 30th of February."""
        try:
            return pc.cast(plain, self.type)
        except pa.ArrowInvalid:
            return None

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

    def is_spelled(self, plain: pa.Array) -> bool:  # noqa: ARG002 - any text is
        return True


class Missing(Check):
    """No value at all."""

    @property
    def type(self) -> pa.DataType:
        """The type to convert to."""
        return pa.null()

    def is_spelled(self, plain: pa.Array) -> bool:
        """Return whether all are missing."""
        return bool(plain.null_count == len(plain))

    def exact(self, plain: pa.Array) -> pa.Array | None:
        """Return as many nulls."""
        return pa.nulls(len(plain))


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


class _Plain(_Number):
    """Numbers that are converted without a look at each sign first: what Arrow refuses is not a number."""

    zeros: tuple[str, ...] = ("0",)
    """The texts that begin with a zero and have nothing behind it but a fraction."""

    def is_spelled(self, plain: pa.Array) -> bool:
        """Return whether the texts have the form of the type, or are digits, points and signs that may have it."""
        return (_has_only_digits(plain) and not self._has_codes(plain)) or super().is_spelled(plain)

    def _has_codes(self, plain: pa.Array) -> bool:
        """Return whether some text begins with a zero that a number would not have."""
        for zero in ("0", "-0"):
            found = _count(pc.starts_with(plain, zero))
            if found and zero in self.zeros:
                found -= _count(pc.equal(plain, zero)) + _count(pc.starts_with(plain, f"{zero}."))
            if found:
                return True
        return False


class Integer(_Plain):
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

    def is_spelled(self, plain: pa.Array) -> bool:
        """Return whether the texts have the form of dates, or its length: Arrow refuses what has not the rest."""
        ends = pc.min_max(pc.binary_length(plain)).as_py()
        if ends == {"min": _DAY_CHARACTERS, "max": _DAY_CHARACTERS} and not _count(pc.starts_with(plain, "0")):
            return True
        return super().is_spelled(plain)


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
        self._whole = 0
        self._scale = 0

    @property
    def type(self) -> pa.DataType:
        """The narrowest decimal that holds all values."""
        width = next((width for width in _WIDTHS if self._whole + self._scale <= width), _WIDTHS[-1])
        return pa.decimal128(width, self._scale)

    def exact(self, plain: pa.Array) -> pa.Array | None:
        """Note the digits on both sides of the point; return the texts if 38 are enough, as the type is not known."""
        point = pc.find_substring(plain, ".")
        whole = pc.utf8_length(pc.replace_substring_regex(pc.utf8_ltrim(plain, "-0"), r"\..*\z", ""))
        scales = pc.subtract(pc.subtract(pc.utf8_length(plain), point), 1).filter(pc.greater_equal(point, 0))
        self._whole = max(self._whole, pc.max(whole).as_py() or 0)
        self._scale = max(self._scale, pc.max(scales).as_py() or 0)
        return plain if self._whole + self._scale <= _WIDTHS[-1] else None


class _AnyDecimal(Decimal):
    """Decimals by the job's word, spelled as floats may be, but without an exponent."""

    def plain(self, values: pa.Array) -> pa.Array:
        """Return them with digits on both sides of the point, and without a plus sign."""
        unsigned = pc.replace_substring_regex(super().plain(values), r"\A\+", "")
        return pc.replace_substring_regex(pc.replace_substring_regex(unsigned, r"\A(-?)\.", r"\10."), r"\.\z", "")


class Float(_Plain):
    """Numbers that a float64 holds without loss, however they are spelled; leading zeros make codes.

    `nan`, `inf` and `-inf`, as Python writes them, count as numbers beside others only.
    """

    zeros = ("0", "-0")
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

    def exact(self, plain: pa.Array) -> pa.Array | None:
        """Return the floats if no digit is lost, and no number is too large."""
        floats = super().exact(plain)
        if floats is None:
            return None
        finite = pc.is_finite(floats)
        if pc.any(finite, min_count=0).as_py():
            self._any_finite = True
        if not pc.all(finite, min_count=0).as_py():
            if pc.any(pc.match_substring_regex(plain.filter(pc.invert(finite)), "[0-9]")).as_py():
                return None
            return floats if self._keeps_digits(plain.filter(finite), floats.filter(finite)) else None
        return floats if self._keeps_digits(plain, floats) else None

    def _keeps_digits(self, plain: pa.Array, floats: pa.Array) -> bool:
        long = pc.greater(pc.binary_length(plain), _EXACT_DIGITS)
        if not pc.any(long).as_py():
            return True
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


def _count(found: pa.Array) -> int:
    return int(pc.sum(found).as_py() or 0)


def _has_only_digits(texts: pa.Array) -> bool:
    """Return whether all bytes of the texts are digits, points, minuses or slashes, which lie together in ASCII."""
    _, offsets, content = texts.buffers()
    if not len(texts) or content is None:
        return False
    begin, end = (
        int.from_bytes(offsets.slice(at * _OFFSET_BYTES, _OFFSET_BYTES).to_pybytes(), sys.byteorder, signed=True)
        for at in (texts.offset, texts.offset + len(texts))
    )
    if begin == end:
        return False
    numbers = pa.Array.from_buffers(pa.uint8(), end - begin, [None, content.slice(begin, end - begin)])
    ends = pc.min_max(numbers).as_py()
    return bool(ends["min"] >= ord("-") and ends["max"] <= ord("9"))
