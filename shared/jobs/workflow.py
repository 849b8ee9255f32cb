"""Canvas over REST: workflows of steps that the client chooses, with Celery's primitives.

When a workflow is submitted, every step is checked against the contract of its kind, and so is its input from
previous steps. Elements may be workflows themselves.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from shared.contract.definition import Contract, Limits
from shared.contract.options import YEAR_S
from shared.contract.params import Params
from shared.workflows.assembly import CanvasContract, Elements
from shared.workflows.definition import GroupResult
from shared.workflows.elements import Element, Kind
from shared.workflows.nodes import MAX_STEPS, Chain, Chord, Chunks, Group, MapStep, Node

_LIMITS = Limits(soft_s=86_400 - 60, hard_s=86_400)
MAX_ITEMS = 100  # of one map or chunk, whose results are one JSON document

_STAGE = {"kind": "etl.extract_data", "params": {"source": {"kind": "http", "url": "https://example.com/sales.csv"}}}
_CLEAN = {"kind": "etl.transform_data", "params": {"steps": [{"op": "drop_missing"}]}}
_SOURCES: list[JsonValue] = [
    {"kind": "http", "url": "https://example.com/2026-01.csv"},
    {"kind": "http", "url": "https://example.com/2026-02.csv"},
]

ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$", examples=["source"])]
SharedParams = Annotated[
    dict[str, JsonValue], Field(description="Parameters that all items share.", examples=[{"options": {}}])
]
ItemTimeLimit = Annotated[
    Annotated[float, Field(ge=1, le=YEAR_S)] | None,
    Field(
        description="Hard time limit of each item in seconds, at most the kind's, which bounds all items of a step "
        "together; default: only that."
    ),
]


class StepResult(BaseModel):
    """The result of the workflow's last step, as described by its kind."""

    model_config = ConfigDict(extra="allow", frozen=True)


class MapResult(BaseModel):
    """Results of the items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: list[dict[str, JsonValue]] = Field(description="One result per item, in order.")


class RunChain(
    CanvasContract,
    Contract[StepResult],
    kind="workflow.chain",
    queue="etl",
    limits=_LIMITS,
    examples=[{"steps": [_STAGE, _CLEAN]}],
):
    """Run steps in sequence; each result feeds the next step."""

    steps: list[Element] = Field(min_length=1, max_length=MAX_STEPS, description="The steps, in order.")

    def nodes(self, elements: Elements) -> Node:
        return Chain(*elements.in_turn("steps", self.steps))


class RunGroup(
    CanvasContract,
    Contract[GroupResult],
    kind="workflow.group",
    queue="etl",
    limits=_LIMITS,
    examples=[{"steps": [_STAGE, _STAGE]}],
):
    """Run steps in parallel. The first failure of a step without `may_fail` ends the job and stops the others."""

    steps: list[Element] = Field(min_length=1, max_length=MAX_STEPS, description="The steps.")

    def nodes(self, elements: Elements) -> Node:
        return Group(*elements.side_by_side("steps", self.steps))


class RunChord(
    CanvasContract,
    Contract[StepResult],
    kind="workflow.chord",
    queue="etl",
    limits=_LIMITS,
    examples=[{"header": [_STAGE, _STAGE], "body": {"kind": "etl.combine_datasets"}}],
):
    """Run steps in parallel, then one step with all their results."""

    header: list[Element] = Field(min_length=1, max_length=MAX_STEPS, description="The steps in parallel.")
    body: Element = Field(description="The step after all of them; a list parameter takes one result from each.")

    def nodes(self, elements: Elements) -> Node:
        header = elements.side_by_side("header", self.header)
        return Chord(header, elements.after("body", self.body))


class RunMap(
    CanvasContract,
    Contract[MapResult],
    kind="workflow.map",
    queue="etl",
    limits=_LIMITS,
    examples=[{"kind": "etl.extract_data", "parameter": "source", "items": _SOURCES}],
):
    """Run a kind on each item in sequence, in one message to one worker."""

    kind: Kind = Field(description="The kind to run on each item.")
    params: SharedParams = Field(default={})
    parameter: ParameterName = Field(description="The parameter that takes an item.")
    items: list[JsonValue] = Field(min_length=1, max_length=MAX_ITEMS, description="The values, in order.")
    item_time_limit_s: ItemTimeLimit = None

    def nodes(self, elements: Elements) -> Node:
        """Return the single map step."""
        items = tuple({self.parameter: item} for item in self.items)
        return elements.mapped(
            "map", self.kind, self.params, items, names=None, item_time_limit_s=self.item_time_limit_s
        )


class _ManyParameters(Params):
    kind: Kind = Field(description="The kind to run on each item.")
    params: SharedParams = Field(default={})
    parameters: list[ParameterName] = Field(
        min_length=1, max_length=32, description="The parameters that take an item's values, in order."
    )
    item_time_limit_s: ItemTimeLimit = None

    def starmap(self, elements: Elements, name: str, items: list[list[JsonValue]]) -> MapStep:
        return elements.mapped(
            name,
            self.kind,
            self.params,
            tuple(items),
            names=tuple(self.parameters),
            item_time_limit_s=self.item_time_limit_s,
        )

    @model_validator(mode="after")
    def _items_fit(self) -> Self:
        for index, item in enumerate(getattr(self, "items", [])):
            if len(item) != len(self.parameters):
                raise ValueError(f"items[{index}] has {len(item)} values for {len(self.parameters)} parameters")
        return self


class RunStarmap(
    _ManyParameters,
    CanvasContract,
    Contract[MapResult],
    kind="workflow.starmap",
    queue="etl",
    limits=_LIMITS,
    examples=[{"kind": "etl.extract_data", "parameters": ["source"], "items": [[source] for source in _SOURCES]}],
):
    """Run a kind on each item in sequence in one message; an item is a list of values for several parameters."""

    items: list[list[JsonValue]] = Field(
        min_length=1, max_length=MAX_ITEMS, description="The lists of values, in the order of `parameters`."
    )

    def nodes(self, elements: Elements) -> Node:
        """Return the single map step."""
        return self.starmap(elements, "starmap", self.items)


class RunChunks(
    _ManyParameters,
    CanvasContract,
    Contract[GroupResult],
    kind="workflow.chunks",
    queue="etl",
    limits=_LIMITS,
    examples=[
        {"kind": "etl.extract_data", "parameters": ["source"], "items": [[s] for s in _SOURCES], "chunk_size": 1}
    ],
):
    """Run a kind on many items: chunks in parallel, the items of a chunk in sequence."""

    items: list[list[JsonValue]] = Field(
        min_length=1, max_length=10_000, description="The lists of values, in the order of `parameters`."
    )
    chunk_size: int = Field(ge=1, le=MAX_ITEMS, description="Items per chunk; each chunk is a step.")

    def nodes(self, elements: Elements) -> Node:
        """Return one step per chunk."""
        return elements.counted(Chunks(self.starmap(elements, "chunk", self.items), self.chunk_size))
