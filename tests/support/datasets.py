"""Datasets of report tests, as Parquet files, and the way from a spec to its figures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from shared.jobs.charts import Chart
from shared.jobs.report import ReportSpec, TableBlock
from worker.pages.content.document import Document, Table
from worker.pages.content.shapes import Figure
from worker.report.charts.charting import draw
from worker.report.compose import composed
from worker.report.data.listing import listed
from worker.report.data.sources import Sources, opened

_CHART: TypeAdapter[Chart] = TypeAdapter(Chart)
HOSTILE = "<script>alert(1)</script>"


def sales(rows: int = 5_000) -> pd.DataFrame:
    """Return orders over two months with missing and infinite values."""
    random = np.random.default_rng(11)
    frame = pd.DataFrame(
        {
            "at": pd.date_range("2026-01-01", periods=rows, freq="17min"),
            "category": random.choice(["tools", "toys", "garden"], rows, p=[0.5, 0.3, 0.2]),
            "shop": random.choice(["Wien", "東京", "القاهرة"], rows),
            "value": random.gamma(2.0, 40.0, rows),
            "weight": random.normal(20.0, 5.0, rows),
            "count": random.integers(1, 10, rows),
        }
    )
    frame.loc[::50, "value"] = np.nan
    frame.loc[7:7, "value"] = np.inf
    frame.loc[::333, "category"] = None
    return frame


@contextmanager
def sources(folder: Path, **frames: pd.DataFrame) -> Iterator[Sources]:
    """Write frames as Parquet files and open them under their names."""
    paths = {}
    for name, frame in frames.items():
        paths[name] = folder / f"{name}.parquet"
        frame.to_parquet(paths[name])
    with opened(paths, scratch=folder, memory_limit_bytes=256 * 1024**2, threads=1) as made:
        yield made


def figure(folder: Path, frame: pd.DataFrame, **chart: Any) -> Figure:
    """Return the figures of one chart of a frame."""
    with sources(folder, dataset=frame) as made:
        return draw(_CHART.validate_python({"title": "A chart", **chart}), made, "sections[0].blocks[0]")


def table(folder: Path, frame: pd.DataFrame, **block: Any) -> tuple[Table, list[tuple[Any, ...]]]:
    """Return one table of a frame, with its rows."""
    with sources(folder, dataset=frame) as made:
        found = listed(TableBlock.model_validate({"kind": "table", "title": "A table", **block}), made, "sections[0]")
        return found, list(found.rows(1_000_000))


@contextmanager
def document(folder: Path, frame: pd.DataFrame, *blocks: dict[str, Any], **more: Any) -> Iterator[Document]:
    """Compose a report of one section from a frame; its tables can be read within the block."""
    spec = {"title": "A report", "sections": [{"title": "A section", "blocks": list(blocks)}], **more}
    with sources(folder, dataset=frame) as made:
        yield composed(ReportSpec.model_validate(spec), made, lambda _done, _total: None)
