"""What operators say of a print shop, in the connections file and the environment of the workers."""

from pydantic import BaseModel, Field, SecretStr


class PrintShop(BaseModel):
    """A print shop that takes orders over HTTP."""

    url: str = Field(pattern=r"^https?://", description="Its address.")
    token: SecretStr = Field(description="Who we are.")
    answers_within_s: float = Field(default=10, gt=0, le=60, description="How long to wait for an answer, in seconds.")
