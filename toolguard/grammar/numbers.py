"""Numbers under bounds, in the spellings of JSON, as regular expressions.

The engine has such expressions too, but only of plain decimals: it would refuse a learning rate of
`1e-4`, or `5.0` of an integer. Behind a bound that is not zero, a number with an exponent is told
where it has one digit before its point, as programs write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from math import ceil, floor, inf, isinf
from typing import Any, NamedTuple, TypeAlias

Bound: TypeAlias = "Decimal | float"

_MOST = 99  # as an exponent
_DIGITS = 64  # on either side of the point


class Range(NamedTuple):
    """The numbers from `low` to `high`, without a bound that is `above` or `below`."""

    low: Bound
    high: Bound
    above: bool
    below: bool

    @property
    def is_empty(self) -> bool:
        return self.low > self.high or (self.low == self.high and (self.above or self.below))


def range_of(kind: str, bounds: Mapping[str, Any]) -> Range:
    """The numbers, or integers, that `minimum`, `exclusiveMaximum` and so on leave."""
    least, above = _exact(bounds, "minimum", -inf), _exact(bounds, "exclusiveMinimum", -inf)
    most, below = _exact(bounds, "maximum", inf), _exact(bounds, "exclusiveMaximum", inf)
    if kind == "integer":
        low = max(_rounded(ceil, least), _rounded(floor, above) + 1)
        high = min(_rounded(floor, most), _rounded(ceil, below) - 1)
        return Range(low, high, False, False)
    return Range(max(least, above), min(most, below), above >= least, below <= most)


def _exact(bounds: Mapping[str, Any], keyword: str, otherwise: float) -> Bound:
    return Decimal(str(bounds[keyword])) if keyword in bounds else otherwise


def _rounded(how: Any, bound: Bound) -> Bound:
    return bound if isinf(bound) else Decimal(how(bound))


def expressions(kind: str, numbers: Range) -> tuple[str, ...]:
    """Expressions that a number in the range matches, all of them; none where any number is."""
    low, high, above, below = numbers
    spelled = _Spelled(kind == "integer")
    if low < 0 < high or (low == 0 and not above) or (high == 0 and not below):
        negative = f"-({spelled.at_most(-low, above)})"
        return () if isinf(low) and isinf(high) else (f"{negative}|{spelled.at_most(high, below)}",)
    sign = ""
    if high <= 0:
        low, high, above, below = -high, -low, below, above
        sign = "-"
    found = [f"{sign}({spelled.at_least(low, above)})"]
    if not isinf(high):
        found.append(f"{sign}({spelled.at_most(high, below)})")
    return tuple(found)


class _Spelled:
    """How numbers without a sign are spelled; an integer has zeros alone behind its point."""

    def __init__(self, integer: bool) -> None:
        self.integer = integer
        self.zeros = r"(\.0{1,16})?" if integer else rf"(\.0{{1,{_DIGITS}}})?"
        self.fraction = self.zeros if integer else rf"(\.[0-9]{{1,{_DIGITS}}})?"
        self.exponent = r"([eE]\+?[0-9]{1,2})?" if integer else r"([eE][+-]?[0-9]{1,2})?"

    def at_most(self, bound: Bound, strict: bool) -> str:
        """All that are not greater, or, strictly, smaller."""
        zero = f"0{self.zeros}{self.exponent}"
        if isinf(bound):
            return f"(0|[1-9][0-9]{{0,63}}){self.fraction}{self.exponent}"
        if bound <= 0:
            return "" if strict or bound < 0 else zero
        whole, behind, order, mantissa = _parts(bound)
        options = [zero, *self.smaller(whole, behind, strict)]
        if len(whole) > 1:
            shorter = min(len(whole) - 2, 63)
            options.append(f"(0|[1-9][0-9]{{0,{shorter}}}){self.fraction}")
        options += self.scientific(-_MOST, order - 1)
        if exponents := self.exponents(order, order):
            if self.integer:
                options.append(f"[1-{mantissa[0]}]{self.fraction}{exponents}")
            else:
                exact = self.smaller(mantissa[0], mantissa[1:], strict, least=1)
                options.append(f"({'|'.join(exact)}){exponents}")
        return "|".join(options)

    def at_least(self, bound: Bound, strict: bool) -> str:
        """All that are not smaller, or, strictly, greater, than zero at the least.

        The longer spellings stand first, as Python's `re` takes the first that matches.
        """
        if bound == 0:  # strictly
            some = rf"[1-9][0-9]{{0,63}}{self.fraction}"
            less = "" if self.integer else rf"|0\.0{{0,63}}[1-9][0-9]{{0,{_DIGITS}}}"
            return f"({some}{less}){self.exponent}"
        whole, behind, order, mantissa = _parts(bound)
        options = self.scientific(order + 1, _MOST)
        if exponents := self.exponents(order, order):
            if self.integer:
                first = int(mantissa[0]) + bool(mantissa[1:])
                options += [f"[{first}-9]{self.fraction}{exponents}"] if first < 10 else []
            else:
                exact = self.greater(mantissa[0], mantissa[1:], strict)
                options.append(f"({'|'.join(exact)}){exponents}")
        if len(whole) < _DIGITS:
            options.append(f"[1-9][0-9]{{{len(whole)},63}}{self.fraction}")
        options += self.greater(whole, behind, strict)
        return "|".join(options)

    def greater(self, whole: str, behind: str, strict: bool) -> list[str]:
        """Those that have as many digits before the point, as plain decimals."""
        size = len(whole)
        if size > _DIGITS:
            return []
        options = [
            f"{whole[:i]}[{int(d) + 1}-9][0-9]{{{size - 1 - i}}}{self.fraction}"
            for i, d in enumerate(whole)
            if d < "9"
        ]
        options += [
            rf"{whole}\.{behind[:i]}[{int(d) + 1}-9][0-9]{{0,{_DIGITS - 1 - i}}}"
            for i, d in enumerate(behind)
            if d < "9"
        ]
        room = _DIGITS - len(behind)
        if strict:
            options.append(rf"{whole}\.{behind}[0-9]{{0,{room}}}[1-9][0-9]{{0,{room}}}")
        elif behind:
            options.append(rf"{whole}\.{behind}[0-9]{{0,{room}}}")
        else:
            options.append(f"{whole}{self.fraction}")
        return options

    def smaller(self, whole: str, behind: str, strict: bool, least: int = 0) -> list[str]:
        """Those that have as many digits before the point, as plain decimals."""
        size = len(whole)
        if size > _DIGITS:
            return []
        options = []
        for i, d in enumerate(whole):
            first = least if i or size == 1 else 1
            if int(d) > first:
                rest = f"[0-9]{{{size - 1 - i}}}"
                options.append(f"{whole[:i]}[{first}-{int(d) - 1}]{rest}{self.fraction}")
        options += [
            rf"{whole}\.{behind[:i]}[0-{int(d) - 1}][0-9]{{0,{_DIGITS - 1 - i}}}"
            for i, d in enumerate(behind)
            if d > "0"
        ]
        if behind:
            options += [whole, *(rf"{whole}\.{behind[:i]}" for i in range(1, len(behind)))]
        if not strict:
            more = rf"\.{behind}0{{0,{_DIGITS - len(behind)}}}" if behind else self.zeros
            options.append(whole + more)
        return options

    def scientific(self, low: int, high: int) -> list[str]:
        """Those between two powers of ten, with one digit before the point."""
        exponents = self.exponents(low, high)
        return [f"[1-9]{self.fraction}{exponents}"] if exponents else []

    def exponents(self, low: int, high: int) -> str:
        """The exponents from `low` to `high`; empty if there are none."""
        low, high = max(low, -_MOST), min(high, _MOST)
        if low > high:
            return ""
        options = [rf"\+?({_two_digits(max(low, 0), high)})"] if high >= 0 else []
        if not self.integer and low <= 0:
            options.append(f"-({_two_digits(max(-high, 0), -low)})")
        return f"[eE]({'|'.join(options)})" if options else ""


def _two_digits(low: int, high: int) -> str:
    """The numbers from `low` to `high`, in one digit or two."""
    options = []
    for ten in range(low // 10, high // 10 + 1):
        first, last = max(low - 10 * ten, 0), min(high - 10 * ten, 9)
        options.append(f"{ten or '0?'}[{first}-{last}]")
    return "|".join(options)


def _parts(bound: Bound) -> tuple[str, str, int, str]:
    """The digits of a bound before and behind its point; the power of ten of its first digit, and
    the digits from there on."""
    whole, _, behind = f"{bound:f}".partition(".")
    behind = behind.rstrip("0")
    digits = (whole + behind).lstrip("0")
    order = len(whole) - 1 if whole != "0" else len(digits) - len(behind) - 1
    return whole, behind, order, digits.rstrip("0")
