"""Draw figures as SVG with matplotlib, without pyplot's state; text stays text, colours are placeholders."""

from __future__ import annotations

import io
import re
import warnings

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from shared.errors import TaskFailure
from worker.pages.charts.marks import height_of, mark
from worker.pages.charts.palette import stand_in
from worker.pages.content.shapes import Figure
from worker.pages.content.values import printable

WIDE, NARROW = 760, 360  # CSS pixels
_PADDING = 6  # the reader's font may be a little wider than the measured one
_MOST_ROOM = 0.45  # share of a side for its labels
_LARGEST_NUMBER = 1e300  # on an axis: the distance of two numbers with margins is still a finite float

_STYLE = {
    **mpl.rcParamsDefault,
    "svg.fonttype": "none",
    "svg.hashsalt": "celeriac",
    "text.parse_math": False,  # a dollar sign in the data does not start a formula
    "font.family": ["DejaVu Sans"],
    "font.size": 12.0,
    "axes.unicode_minus": False,
    "text.color": stand_in("ink"),
    "axes.labelcolor": stand_in("muted"),
    "axes.edgecolor": stand_in("rule"),
    "axes.facecolor": "none",
    "axes.titlecolor": stand_in("muted"),
    "axes.titlelocation": "left",
    "axes.titlesize": 12.0,
    "axes.titlepad": 14.0,
    "axes.labelsize": 12.0,
    "axes.labelpad": 6.0,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.spines.bottom": True,
    "figure.facecolor": "none",
    "grid.color": stand_in("rule"),
    "grid.linewidth": 1.0,
    "xtick.color": stand_in("rule"),
    "ytick.color": stand_in("rule"),
    "xtick.labelcolor": stand_in("muted"),
    "ytick.labelcolor": stand_in("muted"),
    "xtick.major.size": 4.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
}
_UNUSED_ID = re.compile(r' id="(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|[A-Za-z]+Collection)_\d+"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_TAG = re.compile("<[^>]+>")
_OUTER = re.compile(r"<svg [^>]*?viewBox=\"([^\"]+)\"[^>]*>")


def svg_of(figure: Figure, *, name: str, width: int = WIDE) -> str:
    """Return `figure` as an ``<svg>`` element of `width` pixels, colours as placeholders; its ids start with `name`.

    Raises `TaskFailure` (``not_drawable``) for numbers too large for an axis.
    """
    if not all(abs(number) <= _LARGEST_NUMBER for number in figure.numbers):
        raise TaskFailure(
            "not_drawable",
            f"The chart {figure.title!r} has numbers beyond {_LARGEST_NUMBER:g}, too large for an axis.",
            remedy="Drop or scale these rows with etl.transform_data.",
        )
    height = height_of(figure.shape, width)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser chooses the fonts
        canvas = Canvas(figsize=(width / 72, height / 72), dpi=72)
        axes: Axes = canvas.subplots()
        axes.set_xlabel(printable(figure.x_label, 80))
        unit = f" ({figure.format.unit})" if figure.format.unit and figure.y_label else ""
        axes.set_title(printable(figure.y_label, 80) + unit)
        mark(figure, axes, width)
        _make_room(axes)
        written = io.BytesIO()
        FigureCanvasSVG(canvas).print_svg(  # type: ignore[no-untyped-call]  # matplotlib does not annotate it
            written, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return _embedded(written.getvalue().decode("utf-8"), name, width)


def _make_room(axes: Axes) -> None:
    """Shrink `axes` until its labels fit into the picture, like `constrained_layout` in a fifth of the time."""
    canvas = axes.get_figure(root=True)
    outer = axes.get_tightbbox()
    if canvas is None or outer is None:
        return
    inner, (width, height) = axes.get_window_extent(), canvas.bbox.size
    left, right = (inner.x0 - outer.x0 + _PADDING) / width, (outer.x1 - inner.x1 + _PADDING) / width
    bottom, top = (inner.y0 - outer.y0 + _PADDING) / height, (outer.y1 - inner.y1 + _PADDING) / height
    canvas.subplots_adjust(
        left=min(left, _MOST_ROOM), right=1 - min(right, _MOST_ROOM),
        bottom=min(bottom, _MOST_ROOM), top=1 - min(top, _MOST_ROOM),
    )  # fmt: skip


def _embedded(document: str, name: str, width: int) -> str:
    """Return a matplotlib document as an element that can share a page with others."""
    svg = document[document.index("<svg ") :].strip()
    svg = re.sub(r"<defs>\s*<style type=\"text/css\">.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = _TAG.sub(lambda tag: _tag(tag[0], name), svg)  # text between tags is the client's data and is not changed
    return _OUTER.sub(
        rf'<svg xmlns="http://www.w3.org/2000/svg" viewBox="\1" width="{width}" class="drawing"'
        ' font-family="system-ui, sans-serif" stroke-linejoin="round">',
        re.sub(r">\s*\n\s*<", "><", svg),
        count=1,
    )


def _tag(tag: str, name: str) -> str:
    """Return one tag without unused attributes, its ids unique on the page, coordinates to 1/100 pixel."""
    tag = _UNUSED_ID.sub("", tag)
    tag = re.sub(r' id="([^"]+)"', rf' id="{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r' xlink:href="#([^"]+)"', rf' href="#{name}-\1"', tag)
    tag = re.sub(r"font-family: [^;\"]+(; )?", "", tag)
    return _LONG_NUMBER.sub(
        lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), re.sub(r"\s*\n\s*", " ", tag)
    )
