"""What a training takes and gives. PyTorch is not imported here: a gateway does not have it."""

from celeriac import Artifact, Concurrency, Contract, Limits
from pydantic import BaseModel, Field


class Trained(BaseModel):
    """A trained network."""

    weights: Artifact = Field(description="Its state_dict, for torch.load(..., weights_only=True).")
    loss: float = Field(ge=0, description="Mean cross entropy on the training points after the last epoch.")
    accuracy_ratio: float = Field(ge=0, le=1, description="Part of the held-out points that it classifies rightly.")
    resumed_at: int = Field(ge=0, description="The epoch at which the attempt that succeeded began.")


class TrainNetwork(
    Contract[Trained],
    kind="torch.train_network",
    queue="torch",
    processes=1,
    limits=Limits(soft_s=7_000, hard_s=7_200),
    concurrency=Concurrency(limit=1),
    examples=[{"epochs": 20}],
):
    """Train a network to tell two spirals apart; goes on at the last checkpoint if its worker is lost."""

    epochs: int = Field(ge=1, le=100_000, description="How often it sees all points.")
    hidden_count: int = Field(default=32, ge=1, le=1_024, description="Neurons in each of the two hidden layers.")
    learning_rate: float = Field(default=0.02, gt=0, le=1, description="Of the optimizer Adam.")
    checkpoint_every: int = Field(default=25, ge=1, le=10_000, description="Epochs between two checkpoints.")
    seed: int = Field(default=0, ge=0, le=2**31, description="Seed of points, first weights and order.")
