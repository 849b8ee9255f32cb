"""The report family: reports about datasets, and the daily report about the service."""

from __future__ import annotations

import zoneinfo
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.contract.artifacts import ArtifactUri, ReportFile
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.contract.names import ColumnName
from shared.contract.params import Component, Params
from shared.jobs.charts import (
    MAIN_DATASET,
    BarChart,
    BoxChart,
    DatasetName,
    Heading,
    HeatMap,
    Histogram,
    Label,
    LineChart,
    MeasureName,
    NumberFormat,
    ScatterChart,
)
from shared.jobs.data.steps import Columns, Measure, SortKey

MAX_BLOCKS = 100
_EXAMPLE_URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
_RETRY = Retry(max_retries=2, backoff_s=2)

ReportFormat = Literal["html", "xlsx", "csv", "pdf"]
Formats = Annotated[list[ReportFormat], Field(min_length=1, max_length=4)]
Total = Literal["sum", "mean", "min", "max", "count"]


class TextBlock(Params):
    """Paragraphs, separated by empty lines."""

    kind: Literal["text"] = Field(description="Discriminator.")
    text: str = Field(
        max_length=20_000,
        description="Plain text with a little Markdown: `**strong**`, `*emphasis*`, `` `code` ``, and lists of lines "
        "that start with `- `. Everything else, such as links and HTML, is shown as plain text.",
    )


class TableColumn(Params):
    """One column of a table."""

    column: ColumnName = Field(description="Column of the dataset, or measure of this table.")
    label: Label = Field(default="", description="Heading; default: the column's name.")
    format: NumberFormat = Field(default=NumberFormat(), description="Format of its numbers.")
    total: Total | None = Field(
        default=None, description="Total in the last line, over all rows including those not shown."
    )


class TableBlock(Params):
    """Rows of a dataset, or groups of them."""

    kind: Literal["table"] = Field(description="Discriminator.")
    title: Heading = Field(description="Caption of the table; also names it in errors.")
    dataset: DatasetName = Field(default=MAIN_DATASET, description="Name of its dataset.")
    group_by: Columns = Field(default=[], max_length=20, description="Columns to group by; one row per group.")
    measures: dict[MeasureName, Measure] = Field(default={}, max_length=50, description="Aggregates per group.")
    columns: list[TableColumn] = Field(
        default=[], max_length=50, description="Columns to show, in order; default: all, at most the first 50."
    )
    sort: list[SortKey] = Field(
        default=[], max_length=10, description="Sort order; default: that of the file, or of the groups."
    )
    limit: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="Maximum number of rows. The page shows at most 1,000, the workbook all of them.",
    )

    @model_validator(mode="after")
    def _measures_if_grouped(self) -> Self:
        if self.group_by and not self.measures:
            raise ValueError("'group_by' needs 'measures': add at least one, for example a count")
        if taken := sorted(set(self.group_by) & set(self.measures)):
            raise ValueError(f"{taken[0]!r} is in 'group_by' and in 'measures'; give the measure another name")
        return self


Block = Annotated[
    TextBlock | TableBlock | LineChart | BarChart | Histogram | ScatterChart | BoxChart | HeatMap,
    Field(discriminator="kind"),
    Component("Block"),
]


class Section(Params):
    """A section of the report."""

    title: str = Field(default="", max_length=200, description="Heading; may be empty.")
    blocks: list[Block] = Field(min_length=1, max_length=50, description="Text, tables and charts, in order.")


class ReportSpec(Params):
    """Content of a report."""

    title: Heading = Field(description="Title of the report.", examples=["Sales in November"])
    subtitle: str = Field(default="", max_length=500, description="A line below the title.")
    lang: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")] = Field(
        default="en", description="Language of the texts (BCP 47), for screen readers and hyphenation."
    )
    datasets: dict[DatasetName, ArtifactUri] = Field(
        default={}, max_length=16, description="Further datasets, by the name that blocks use."
    )
    sections: list[Section] = Field(min_length=1, max_length=50, description="The sections of the report.")
    formats: Formats = Field(
        default=["html"],
        description="`html`: one self-contained page; `xlsx`: a workbook; `csv`: a file per table; `pdf`: the page "
        "as PDF, if the workers support it.",
    )

    @model_validator(mode="after")
    def _datasets_are_known(self) -> Self:
        if MAIN_DATASET in self.datasets:
            raise ValueError(
                f"'datasets' has the reserved name {MAIN_DATASET!r} of the main dataset; choose another name"
            )
        known = [MAIN_DATASET, *self.datasets]
        for index, section in enumerate(self.sections):
            for number, block in enumerate(section.blocks):
                if not isinstance(block, TextBlock) and block.dataset not in known:
                    raise ValueError(
                        f"sections[{index}].blocks[{number}]: no dataset is named {block.dataset!r}; known are {known}"
                    )
        return self

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if (count := sum(len(section.blocks) for section in self.sections)) > MAX_BLOCKS:
            raise ValueError(f"the sections have {count} blocks in total; the maximum is {MAX_BLOCKS}")
        return self


class DrawnChart(BaseModel):
    """A drawn chart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(description="Its title.")
    kind: str = Field(description="Its kind, as in the spec.")
    row_count: int = Field(ge=0, description="Rows that the chart aggregates.")
    left_out_count: int = Field(ge=0, description="Rows omitted because a needed value is missing or not finite.")
    drawn_count: int = Field(ge=0, description="Points, bars, intervals, boxes or cells drawn.")
    note: str = Field(description="How rows were aggregated, sampled or limited; empty if all are drawn.")


class ReportResult(BaseModel):
    """Result of a report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reports: list[ReportFile] = Field(description="The files, in the order of `formats`.")
    row_counts: dict[str, int] = Field(description="Rows of each dataset.")
    table_count: int = Field(ge=0, description="Tables in the report.")
    charts: list[DrawnChart] = Field(description="The charts, in order.")
    warnings: list[str] = Field(description="Notes for the reader: truncated tables, sampled charts, empty data.")


class GenerateReport(
    ReportSpec,
    Contract[ReportResult],
    kind="report.generate_report",
    queue="report",
    limits=Limits(soft_s=1_740, hard_s=1_800),
    retry=_RETRY,
    examples=[
        {
            "dataset": _EXAMPLE_URI,
            "title": "Sales in November",
            "formats": ["html", "xlsx"],
            "sections": [
                {
                    "title": "By category",
                    "blocks": [
                        {"kind": "text", "text": "Revenue of **all** shops, by category."},
                        {
                            "kind": "bar",
                            "title": "Revenue by category",
                            "x": "category",
                            "y": {"revenue": {"function": "sum", "column": "value"}},
                        },
                        {
                            "kind": "table",
                            "title": "Categories",
                            "group_by": ["category"],
                            "measures": {"revenue": {"function": "sum", "column": "value"}},
                            "columns": [{"column": "category"}, {"column": "revenue", "total": "sum"}],
                            "sort": [{"column": "revenue", "order": "desc"}],
                        },
                    ],
                }
            ],
        }
    ],
):
    """Render a dataset as a page, a workbook or a PDF, from a declarative spec.

    The page is one self-contained file: it works offline, can be printed, and has a light and a dark theme.
    """

    dataset: Annotated[ArtifactUri, FedFromUpstream("dataset")] = Field(
        description="The main dataset; in a workflow the previous step supplies it."
    )


def _zone(name: str) -> str:
    try:
        return zoneinfo.ZoneInfo(name).key
    except (KeyError, ValueError, OSError):  # unknown; not a name of a zone; the name of a folder of zones
        raise ValueError(f"{name!r} is not an IANA time zone; use a name such as 'Europe/Berlin' or 'UTC'") from None


class DailyReportResult(BaseModel):
    """Result of a daily report: figures and files."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reports: list[ReportFile] = Field(description="The files, in the order of `formats`.")
    day: date = Field(description="The day, in the time zone.")
    time_zone: str = Field(description="Time zone of the day.")
    job_count: int = Field(ge=0, description="Jobs submitted on the day.")
    by_state: dict[str, int] = Field(description="Number of these jobs per state.")
    failure_ratio: float | None = Field(
        ge=0,
        le=1,
        description="Ratio of failed and quarantined jobs to those that succeeded, failed or were quarantined.",
    )
    wait_p95_s: float | None = Field(ge=0, description="95th percentile of the wait for a worker, in seconds.")
    run_p95_s: float | None = Field(ge=0, description="95th percentile of the run time, in seconds.")
    previous_job_count: int = Field(
        ge=0, description="Jobs submitted on the day before; until the same time, if the day has not ended."
    )


class GenerateDailyReport(
    Contract[DailyReportResult],
    kind="report.generate_daily_report",
    queue="report",
    limits=Limits(soft_s=1_740, hard_s=1_800),
    retry=_RETRY,
    examples=[{}, {"day": "2026-11-21", "time_zone": "Europe/Berlin", "formats": ["html", "xlsx"]}],
):
    """Report about one day of the service: jobs, failures, waits, run times, compared with the day before.

    A job counts for the day on which it was submitted, with its state when the report is made. Jobs that were deleted
    from the ledger before that (retention, `DELETE`) are not included.
    """

    day: Annotated[date, Field(ge=date(2000, 1, 1), le=date(9998, 12, 31))] | None = Field(
        default=None, description="The day; default: yesterday in `time_zone`."
    )
    time_zone: Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)] = Field(
        default="UTC", description="IANA time zone of the start and end of the day, clock changes included."
    )
    formats: Formats = Field(default=["html"], description="As in `report.generate_report`.")
