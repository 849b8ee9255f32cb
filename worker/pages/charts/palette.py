"""Colours of reports: eight that colour-blind readers can distinguish, in a light and a dark version.

They are Okabe and Ito's palette (Color Universal Design, 2008), darkened or lightened until each has a contrast of
at least 3 to the page (WCAG 2.2, 1.4.11). Charts are drawn once, with placeholders that the page replaces.
"""

from __future__ import annotations

import re

LIGHT = {
    "paper": "#ffffff", "ink": "#1b2430", "muted": "#566172", "rule": "#dfe4ea",
    "c0": "#0068a8", "c1": "#c85200", "c2": "#00805f", "c3": "#a63f86",
    "c4": "#8f6a00", "c5": "#3d8fc4", "c6": "#6b6f76", "c7": "#7a3b2e",
}  # fmt: skip
DARK = {
    "paper": "#14181e", "ink": "#e8ebef", "muted": "#a3adba", "rule": "#2e3640",
    "c0": "#58b4f0", "c1": "#ff8f4a", "c2": "#35c79c", "c3": "#e593cb",
    "c4": "#e4b73f", "c5": "#a5d6f5", "c6": "#b4b9c1", "c7": "#cf9382",
}  # fmt: skip
SERIES = 8

_STAND_INS = {name: f"#0100{index:02x}" for index, name in enumerate(LIGHT)}
_NAMES = {colour: name for name, colour in _STAND_INS.items()}
_STAND_IN = re.compile("#0100[0-9a-f]{2}")
_TAG = re.compile("<[^>]+>")  # text between tags is the client's data and is not changed


def stand_in(name: str) -> str:
    """Return the placeholder for the page's colour `name`."""
    return _STAND_INS[name]


def series_colour(index: int) -> str:
    """Return the placeholder for series number `index`; colours repeat after eight."""
    return _STAND_INS[f"c{index % SERIES}"]


def with_variables(svg: str) -> str:
    """Return `svg` with the page's CSS variables in place of the placeholders."""
    return _TAG.sub(lambda tag: _STAND_IN.sub(lambda found: f"var(--{_NAMES[found[0]]})", tag[0]), svg)


def with_light(svg: str) -> str:
    """Return `svg` with the colours of a light page in place of the placeholders."""
    return _TAG.sub(lambda tag: _STAND_IN.sub(lambda found: LIGHT[_NAMES[found[0]]], tag[0]), svg)


def variables(colours: dict[str, str]) -> str:
    """Return CSS that defines the page's colour variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
