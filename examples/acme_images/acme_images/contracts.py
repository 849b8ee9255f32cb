"""What the image team's jobs take and give. Imported by gateways and workers; nothing heavy is imported here."""

from typing import Annotated

from celeriac import (
    Artifact,
    ArtifactUri,
    Concurrency,
    ConnectionName,
    Contract,
    FedFromUpstream,
    GroupResult,
    Limits,
    Node,
    Retry,
    WorkflowContract,
    chord,
    connection,
    fed_step,
    group,
    role,
    step,
)
from pydantic import BaseModel, Field

Picture = role("acme.picture")  # what a thumbnail is; a ZIP is any file

_ZIP = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/0/holiday.zip"
_PNG = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/beach.png"


class Thumbnails(BaseModel):
    """The thumbnails of a ZIP of pictures."""

    thumbnails: list[Annotated[Artifact, Picture]] = Field(description="One PNG a picture, in the order of the ZIP.")
    skipped: list[str] = Field(description="Names of files that are not pictures.")


class MakeThumbnails(
    Contract[Thumbnails],
    kind="acme.make_thumbnails",
    queue="acme",
    limits=Limits(soft_s=280, hard_s=300),
    examples=[{"archive": _ZIP}],
):
    """Make a thumbnail of each picture in a ZIP."""

    archive: Annotated[ArtifactUri, FedFromUpstream("file")] = Field(description="The ZIP with the pictures.")
    longest_px: int = Field(default=128, ge=16, le=1_024, description="Longest side of a thumbnail in pixels.")


class Sheet(BaseModel):
    """A contact sheet."""

    sheet: Artifact = Field(description="The sheet, a PNG.")
    count: int = Field(ge=0, description="Number of pictures on it.")


class SheetSpec(BaseModel):
    """How a contact sheet looks."""

    columns: int = Field(default=4, ge=1, le=20, description="Pictures in a row.")


class DrawSheet(
    SheetSpec,
    Contract[Sheet],
    kind="acme.draw_sheet",
    queue="acme",
    limits=Limits(soft_s=110, hard_s=120),
    examples=[{"pictures": [_PNG], "columns": 2}],
):
    """Draw pictures side by side on one sheet."""

    pictures: Annotated[list[ArtifactUri], FedFromUpstream(Picture)] = Field(
        min_length=1, max_length=400, description="The pictures; in a workflow the previous steps supply them."
    )


class MakeAlbum(
    WorkflowContract[Sheet],
    kind="acme.make_album",
    queue="acme",
    limits=Limits(soft_s=880, hard_s=900),
    examples=[{"archives": [_ZIP]}],
):
    """Make the thumbnails of several ZIPs in parallel, then one sheet of all."""

    archives: list[ArtifactUri] = Field(min_length=1, max_length=50, description="The ZIPs.")
    columns: int = Field(default=4, ge=1, le=20, description="Pictures in a row.")

    def plan(self) -> Node:
        """Return a chord: a step for each ZIP, then the sheet, which is fed with all their thumbnails."""
        parts = [
            step(f"thumbnails_{index}", MakeThumbnails(archive=archive)) for index, archive in enumerate(self.archives)
        ]
        return chord(parts, fed_step("sheet", DrawSheet, SheetSpec(columns=self.columns)))


class Cooled(BaseModel):
    """How a hot rod has cooled."""

    warmest: float = Field(description="Temperature of the warmest cell at the end, where 1 is that of the start.")
    resumed_at: int = Field(ge=0, description="The step at which the attempt that succeeded began.")
    profile: Artifact = Field(description="The temperature of every cell, CSV.")


class SimulateCooling(
    Contract[Cooled],
    kind="acme.simulate_cooling",
    queue="acme",
    limits=Limits(soft_s=3_500, hard_s=3_600),
    concurrency=Concurrency(limit=2),
    examples=[{"step_count": 1_000}],
):
    """Simulate how a rod cools whose middle is hot; goes on at the last checkpoint if its worker is lost."""

    step_count: int = Field(ge=1, le=10_000_000, description="Number of steps.")
    cell_count: int = Field(default=64, ge=3, le=1_000, description="Number of cells of the rod.")


class Ordered(BaseModel):
    """An order of prints."""

    order: str = Field(description="Its number at the print shop.")
    attempts: int = Field(ge=1, description="How often the shop was asked.")


class OrderPrints(
    Contract[Ordered],
    kind="acme.order_prints",
    queue="acme",
    limits=Limits(soft_s=50, hard_s=60),
    retry=Retry(max_retries=5, backoff_s=0.2, backoff_max_s=30),
    idempotent_by=("customer", "album"),
    examples=[{"customer": "c-1", "album": "holiday", "count": 3}],
):
    """Order prints at a shop, whose address and token only the workers know."""

    shop: Annotated[ConnectionName, connection("print_shop")] = Field(default="corner", description="Where.")
    customer: str = Field(min_length=1, max_length=100, description="Who orders.")
    album: str = Field(min_length=1, max_length=100, description="What is printed.")
    count: int = Field(ge=1, le=1_000, description="Number of prints.")


class OrderForAll(
    WorkflowContract[GroupResult],
    kind="acme.order_for_all",
    queue="acme",
    limits=Limits(soft_s=280, hard_s=300),
    examples=[{"customers": ["c-1", "c-2"], "album": "holiday"}],
):
    """Order one print for each customer, in parallel; an order that fails does not stop the others."""

    customers: list[str] = Field(min_length=1, max_length=100, description="Who gets one.")
    album: str = Field(min_length=1, max_length=100, description="What is printed.")

    def plan(self) -> Node:
        """Return a group of orders."""
        return group(
            *(
                step(f"order_{index}", OrderPrints(customer=customer, album=self.album, count=1), may_fail=True)
                for index, customer in enumerate(self.customers)
            )
        )
