"""Canvas over REST: workflows whose steps the client names, on Celery's primitives.

Every step is checked against the contract of its kind when the workflow is submitted, and so is what it takes from
the steps before it. Elements may be workflows themselves.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from shared.contract.definition import Contract, Limits
from shared.contract.params import Params
from shared.workflows.elements import CanvasContract, Element, Elements, Kind
from shared.workflows.nodes import MAX_STEPS, Chain, Chord, Chunks, Group, MapStep, Node

_LIMITS = Limits(soft_s=86_400 - 60, hard_s=86_400)
MAX_ITEMS = 100  # of one map or chunk: its results are one JSON document

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


class StepResult(BaseModel):
    """The result of the workflow's last step, as its own kind describes it."""

    model_config = ConfigDict(extra="allow", frozen=True)


class GroupResult(BaseModel):
    """How the steps of a group ended. What each returned is with the step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    succeeded_count: int = Field(ge=0, description="Steps that succeeded.")
    failed_count: int = Field(ge=0, description="Steps that failed and were allowed to.")


class MapResult(BaseModel):
    """What the items returned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: list[dict[str, JsonValue]] = Field(description="One result an item, in order.")


class RunChain(
    CanvasContract,
    Contract[StepResult],
    kind="workflow.chain",
    queue="etl",
    limits=_LIMITS,
    examples=[{"steps": [_STAGE, _CLEAN]}],
):
    """Run steps one after another; each result feeds the next step."""

    steps: list[Element] = Field(min_length=1, max_length=MAX_STEPS, description="The steps, in order.")

    def nodes(self, elements: Elements) -> Node:
        """Return the chain."""
        return Chain(*elements.in_turn("steps", self.steps))


class RunGroup(
    CanvasContract,
    Contract[GroupResult],
    kind="workflow.group",
    queue="etl",
    limits=_LIMITS,
    examples=[{"steps": [_STAGE, _STAGE]}],
):
    """Run steps in parallel. The first one that fails and may not ends the job; the others are stopped."""

    steps: list[Element] = Field(min_length=1, max_length=MAX_STEPS, description="The steps.")

    def nodes(self, elements: Elements) -> Node:
        """Return the group."""
        return Group(*elements.side_by_side("steps", self.steps))


class RunChord(
    CanvasContract,
    Contract[StepResult],
    kind="workflow.chord",
    queue="etl",
    limits=_LIMITS,
    examples=[{"header": [_STAGE, _STAGE], "body": {"kind": "etl.combine_datasets"}}],
):
    """Run steps in parallel, then one that gets all their results."""

    header: list[Element] = Field(min_length=1, max_length=MAX_STEPS, description="The steps in parallel.")
    body: Element = Field(description="The step after all of them; a list parameter takes one result of each.")

    def nodes(self, elements: Elements) -> Node:
        """Return the chord."""
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
    """Run a kind on one item after another, in one message to one worker."""

    kind: Kind = Field(description="The kind that runs on each item.")
    params: SharedParams = Field(default={})
    parameter: ParameterName = Field(description="The parameter that the items are values of.")
    items: list[JsonValue] = Field(min_length=1, max_length=MAX_ITEMS, description="The values, in order.")

    def nodes(self, elements: Elements) -> Node:
        """Return the one step that maps."""
        items = tuple({self.parameter: item} for item in self.items)
        return elements.mapped("map", self.kind, self.params, items, None)


class _ManyParameters(Params):
    kind: Kind = Field(description="The kind that runs on each item.")
    params: SharedParams = Field(default={})
    parameters: list[ParameterName] = Field(
        min_length=1, max_length=32, description="The parameters that an item has values of, in order."
    )

    def starmap(self, elements: Elements, name: str, items: list[list[JsonValue]]) -> MapStep:
        """Return the one step that maps."""
        return elements.mapped(name, self.kind, self.params, tuple(items), tuple(self.parameters))

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
    """Run a kind on one item after another, each a list of values for several parameters, in one message."""

    items: list[list[JsonValue]] = Field(
        min_length=1, max_length=MAX_ITEMS, description="The lists of values, in the order of `parameters`."
    )

    def nodes(self, elements: Elements) -> Node:
        """Return the one step that maps."""
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
    """Run a kind on many items: chunks of them in parallel, the items of a chunk one after another."""

    items: list[list[JsonValue]] = Field(
        min_length=1, max_length=10_000, description="The lists of values, in the order of `parameters`."
    )
    chunk_size: int = Field(ge=1, le=MAX_ITEMS, description="Items a chunk; each chunk is a step.")

    def nodes(self, elements: Elements) -> Node:
        """Return one step a chunk."""
        return elements.counted(Chunks(self.starmap(elements, "chunk", self.items), self.chunk_size))
