"""Colours have enough contrast, on light pages and on dark ones."""

from __future__ import annotations

import pytest

from worker.pages.charts.palette import DARK, LIGHT, stand_in, with_light, with_variables


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_contrast(colours: dict[str, str]) -> None:
    """Text has at least 4.5 (and running text 7) to the page, marks have 3."""
    paper = colours["paper"]
    assert contrast(colours["ink"], paper) >= 7
    assert contrast(colours["muted"], paper) >= 4.5
    assert {name: contrast(colours[name], paper) >= 3 for name in colours if name.startswith("c")} == {
        f"c{number}": True for number in range(8)
    }
    assert min(contrast(colours[name], paper) for name in ("c1", "c2")) >= 4.3  # they are the colours of words, too


def test_stand_ins_in_texts_stay() -> None:
    """Colours are put into tags; a text that looks like a stand-in is somebody's data."""
    svg = f'<text style="fill: {stand_in("ink")}">{stand_in("ink")}</text>'
    assert with_variables(svg) == f'<text style="fill: var(--ink)">{stand_in("ink")}</text>'
    assert with_light(svg) == f'<text style="fill: {LIGHT["ink"]}">{stand_in("ink")}</text>'
