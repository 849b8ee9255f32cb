"""The network, its points and an epoch: PyTorch without any word of Celeriac."""

from typing import Any

import torch
from torch import Tensor, nn

_POINT_COUNT, _BATCH = 512, 128


class Training:
    """A network in training: everything that the next epoch depends on."""

    def __init__(self, hidden_count: int, learning_rate: float, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.points, self.labels = spirals(_POINT_COUNT, self.random)
        self.held_out = spirals(_POINT_COUNT, self.random)
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(2, hidden_count),
                nn.Tanh(),
                nn.Linear(hidden_count, hidden_count),
                nn.Tanh(),
                nn.Linear(hidden_count, 2),
            )
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=learning_rate)
        self.loss = nn.CrossEntropyLoss()

    def run_epoch(self) -> float:
        """Show all points to the network in a new order; return the mean loss."""
        total = 0.0
        for batch in torch.randperm(len(self.points), generator=self.random).split(_BATCH):
            self.optimizer.zero_grad()
            loss = self.loss(self.network(self.points[batch]), self.labels[batch])
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(batch)
        return total / len(self.points)

    def accuracy_ratio(self) -> float:
        """Return the part of the held-out points that are classified rightly."""
        points, labels = self.held_out
        with torch.no_grad():
            return (self.network(points).argmax(dim=1) == labels).float().mean().item()

    def state(self) -> dict[str, Any]:
        """Return all that changes from epoch to epoch: the weights alone would go on differently."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.get_state(),
        }

    def go_on(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.set_state(state["random"])


def spirals(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return (count, 2) float32 points on two noisy spirals, and the (count,) int64 number of the spiral of each."""
    labels = torch.arange(count) % 2
    radius = torch.rand(count, generator=random)
    angle = radius * 8 + labels * torch.pi
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return points + 0.02 * torch.randn(count, 2, generator=random), labels
