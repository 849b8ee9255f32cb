"""What the gateway knows of the job; it imports this module only."""

from typing import Annotated

from pydantic import BaseModel, Field

from celeriac import ArtifactUri, Contract, Limits


class Invoice(BaseModel):
    """A written invoice."""

    total_cents: int = Field(description="What is to be paid.")
    uri: ArtifactUri = Field(description="The text of the invoice.")


class WriteInvoice(
    Contract[Invoice],
    kind="shop.write_invoice",
    queue="shop",
    limits=Limits(soft_s=50, hard_s=60),
    examples=[{"order": 7, "prices_cents": [1200, 350]}],
):
    """Write the invoice of an order."""

    order: int = Field(description="Number of the order.", ge=1)
    prices_cents: list[Annotated[int, Field(ge=0)]] = Field(description="Price of each item.", max_length=1_000)
