"""The ETL family: stage a source as Parquet, transform it, load it; alone, as a pipeline, or in parallel."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.contract.artifacts import ArtifactUri, Dataset
from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry
from shared.contract.names import (
    ColumnName,
)
from shared.contract.params import Params
from shared.jobs.data.places import Destination, Source
from shared.jobs.data.steps import BadRows, JoinStep, SqlText, Step
from shared.workflows.definition import WorkflowContract
from shared.workflows.nodes import Chain, Chord, Node, fed_step, step

_HOUR_S = 3600.0
_NETWORK_RETRY = Retry(max_retries=4, backoff_s=2, backoff_max_s=120)

FedDataset = Annotated[ArtifactUri, FedFromUpstream("dataset")]


class Rejected(BaseModel):
    """Rejected rows, and the reasons."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row_count: int = Field(ge=0, description="Rejected rows.")
    nulled_count: int = Field(ge=0, description="Values that could not be converted and were set to missing.")
    by_reason: dict[str, int] = Field(description="Rejected rows, or nulled values, per reason.")
    artifact: Dataset | None = Field(
        description="The rejected rows with a column `reject_reason`; null if there are none."
    )


class BadRowsFound(BaseModel):
    """Rows of a source that had too few or too many fields and were left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row_count: int = Field(ge=0, description="Rows that were left out.")
    artifact: Dataset | None = Field(
        description="Their lines, texts and reasons, with `layout.on_bad_rows: reject`; null if there are none."
    )


class ExtractResult(BaseModel):
    """Result of an extraction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Dataset = Field(description="The staged table.")
    read_bytes: int = Field(ge=0, description="Bytes read from the source, before decompression; 0 for SQL.")
    source: str = Field(description="Origin of the data, without credentials.")
    missing: dict[str, int] = Field(
        default={}, description="Missing values (NULL) per column, for the columns that have any."
    )
    bad_rows: BadRowsFound | None = Field(default=None, description="Rows that were left out; null if there are none.")
    warnings: list[str] = Field(default=[], description="What the source has that a reader should know.")


class TransformResult(BaseModel):
    """Result of a transformation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Dataset = Field(description="The transformed table.")
    input_row_count: int = Field(ge=0, description="Rows of the input.")
    rejected: Rejected = Field(description="Rejected rows and nulled values.")


class LoadResult(BaseModel):
    """Result of a load."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    destination: str = Field(description="Place of the loaded rows, without credentials.", examples=["warehouse:sales"])
    mode: str = Field(description="Write mode.")
    inserted_count: int = Field(ge=0, description="Rows added.")
    updated_count: int = Field(ge=0, description="Rows updated by key.")
    deleted_count: int = Field(ge=0, description="Rows that a `replace` removed.")
    already_loaded: bool = Field(description="Whether an earlier delivery of this job loaded these rows.")


class ExtractData(
    Contract[ExtractResult],
    kind="etl.extract_data",
    queue="etl",
    limits=Limits(soft_s=1 * _HOUR_S - 60, hard_s=_HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {"source": {"kind": "http", "url": "https://example.com/sales.csv"}},
        {"source": {"kind": "sql", "connection": "warehouse", "table": "public.sales"}},
    ],
):
    """Stage a source as one Parquet artifact.

    It streams: memory is bounded for any size. Progress counts bytes (files) or rows (SQL).
    """

    source: Source = Field(description="Source of the data.")


class TransformSpec(Params):
    """A transformation: declarative steps, or one SQL query over the view `input`."""

    steps: list[Step] = Field(default=[], max_length=100, description="Steps, applied in order.")
    sql: SqlText | None = Field(
        default=None,
        description="One SELECT (DuckDB's dialect) over the view `input` and the views named in `inputs`, without "
        "access to files, network, extensions or settings. `bad_rows` does not apply to it: use TRY_CAST.",
    )
    inputs: dict[ColumnName, ArtifactUri] = Field(
        default={}, max_length=16, description="Further datasets, which joins and the SQL use as views."
    )
    bad_rows: BadRows = Field(
        default="fail",
        description="Policy for a value that cannot be converted: `fail` the job, set the value to `null`, "
        "or `reject` the row into an artifact with the reason.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.steps) == (self.sql is not None):
            raise ValueError("set exactly one of 'steps' and 'sql'")
        return self

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        folded = [name.casefold() for name in self.inputs]
        if "input" in folded or len(set(folded)) < len(folded):
            raise ValueError("names in 'inputs' must differ by more than case, and 'input' is reserved for the dataset")
        for index, one in enumerate(self.steps):
            if isinstance(one, JoinStep) and one.input not in self.inputs:
                known = ", ".join(repr(name) for name in self.inputs) or "none"
                raise ValueError(f"steps[{index}] joins {one.input!r}, which is not in 'inputs' (it has {known})")
        return self


class TransformData(
    TransformSpec,
    Contract[TransformResult],
    kind="etl.transform_data",
    queue="etl",
    limits=Limits(soft_s=1 * _HOUR_S - 60, hard_s=_HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {
            "dataset": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet",
            "steps": [
                {"op": "drop_missing"},
                {"op": "cast", "columns": {"date": "date"}},
                {
                    "op": "aggregate",
                    "group_by": ["category"],
                    "measures": {
                        "value": {"function": "sum", "column": "value"},
                        "count": {"function": "sum", "column": "count"},
                    },
                },
            ],
        },
        {
            "dataset": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet",
            "sql": "SELECT category, sum(value) AS value FROM input GROUP BY category",
        },
    ],
):
    """Transform a dataset with DuckDB and stage the result.

    The first example drops missing values, parses `date`, groups by `category` and sums.
    """

    dataset: FedDataset = Field(description="The dataset to transform; in a workflow the previous step supplies it.")


class LoadSpec(Params):
    """Destination of a dataset."""

    destination: Destination = Field(description="Destination of the rows.")


class LoadData(
    LoadSpec,
    Contract[LoadResult],
    kind="etl.load_data",
    queue="etl",
    limits=Limits(soft_s=1 * _HOUR_S - 60, hard_s=_HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {
            "dataset": "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet",
            "destination": {"kind": "table", "connection": "warehouse", "table": "sales", "mode": "replace"},
        }
    ],
):
    """Load a dataset into a table or a file: all or nothing, and once even if the message is redelivered."""

    dataset: FedDataset = Field(description="The dataset to load; in a workflow the previous step supplies it.")


class RunPipeline(
    WorkflowContract[LoadResult],
    kind="etl.run_pipeline",
    queue="etl",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    examples=[
        {
            "source": {"kind": "http", "url": "https://example.com/sales.csv"},
            "transform": {"steps": [{"op": "drop_missing"}]},
            "destination": {"kind": "table", "connection": "warehouse", "table": "sales", "mode": "replace"},
        }
    ],
):
    """Extract, transform and load as one job with a state for each step.

    The result is that of the load. If a step fails, the error names it and the later steps are skipped.
    """

    source: Source = Field(description="Source of the data.")
    transform: TransformSpec | None = Field(default=None, description="Transformation; default: none.")
    destination: Destination = Field(description="Destination of the rows.")

    def plan(self) -> Node:
        """Return extract -> transform -> load (transform only if requested)."""
        return Chain(
            step("extract", ExtractData(source=self.source)),
            *([fed_step("transform", TransformData, self.transform)] if self.transform else []),
            fed_step("load", LoadData, LoadSpec(destination=self.destination)),
        )


class CombineSpec(Params):
    """Combination of several datasets."""

    transform: TransformSpec | None = Field(
        default=None, description="Transformation of the combined rows, for example an aggregation over all parts."
    )


class CombineDatasets(
    CombineSpec,
    Contract[TransformResult],
    kind="etl.combine_datasets",
    queue="etl",
    limits=Limits(soft_s=1 * _HOUR_S - 60, hard_s=_HOUR_S),
    retry=_NETWORK_RETRY,
    examples=[
        {
            "datasets": [
                "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet",
                "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ac/1/data.parquet",
            ]
        }
    ],
):
    """Concatenate datasets with the same columns, matched by name."""

    datasets: Annotated[list[ArtifactUri], FedFromUpstream("dataset")] = Field(
        min_length=1, max_length=1_000, description="The datasets; in a workflow the previous steps supply them."
    )


class PartitionedResult(BaseModel):
    """Result of the combined parts."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    dataset: Dataset | None = Field(default=None, description="The combined table, unless it was loaded.")
    destination: str | None = Field(default=None, description="Place of the rows, if they were loaded.")


class RunPartitioned(
    WorkflowContract[PartitionedResult],
    kind="etl.run_partitioned",
    queue="etl",
    limits=Limits(soft_s=3 * _HOUR_S - 60, hard_s=3 * _HOUR_S),
    examples=[
        {
            "sources": [
                {"kind": "http", "url": "https://example.com/2026-01.csv"},
                {"kind": "http", "url": "https://example.com/2026-02.csv"},
            ]
        }
    ],
):
    """Extract many sources in parallel, combine them into one dataset, and load it if a destination is given."""

    sources: list[Source] = Field(min_length=1, max_length=1_000, description="The parts; each is one step.")
    transform: TransformSpec | None = Field(default=None, description="Transformation of the combined rows.")
    destination: Destination | None = Field(default=None, description="Destination of the rows; default: only staged.")

    def plan(self) -> Node:
        """Return a chord of extracts with one combine, then the load if there is one."""
        parts = Chord(
            [step(f"extract_{index}", ExtractData(source=source)) for index, source in enumerate(self.sources)],
            fed_step("combine", CombineDatasets, CombineSpec(transform=self.transform)),
        )
        if self.destination is None:
            return parts
        return Chain(parts, fed_step("load", LoadData, LoadSpec(destination=self.destination)))
