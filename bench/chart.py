"""A chart of the goals: how much of each is reached, on a scale of factors of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from bench.report import Reached

_ROW, _TEXT, _OCTAVE, _SIDE = 22, 430, 90, 2  # pixels; factors of two to either side of the goal
_MET, _MISSED, _LINE = "#2a7f62", "#c0562f", "#8a8a8a"


def _x(share: float) -> float:
    return _TEXT + _OCTAVE * (_SIDE + max(-_SIDE, min(_SIDE, math.log2(max(share, 1e-9)))))


def _parts(found: Sequence[Reached]) -> Iterator[str]:
    width, height, goal = _TEXT + 2 * _SIDE * _OCTAVE + 20, _ROW * (len(found) + 2), _x(1)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif"'
    yield ' font-size="12"><title>How much of each goal is reached</title>'
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    for factor, name in ((0.25, "a quarter"), (0.5, "half"), (1, "goal"), (2, "twice"), (4, "four times")):
        yield f'<line x1="{_x(factor)}" x2="{_x(factor)}" y1="{_ROW}" y2="{height - 8}" stroke="{_LINE}"'
        yield f' stroke-width="{1.5 if factor == 1 else 0.3}"/>'
        yield f'<text x="{_x(factor)}" y="14" text-anchor="middle">{name}</text>'
    for n, one in enumerate(found, 1):
        x, y, colour = _x(one.share), _ROW * n + 4, _MET if one.share >= 1 else _MISSED
        yield f'<text x="{_TEXT - 8}" y="{y + 12}" text-anchor="end">{escape(one.what)}</text>'
        yield f'<rect x="{min(x, goal):.1f}" y="{y}" width="{abs(x - goal):.1f}" height="{_ROW - 8}" fill="{colour}"/>'
    yield "</svg>"


def svg(found: Sequence[Reached]) -> str:
    """Return the chart."""
    return "".join(_parts(found)) + "\n"
