"""The training in memory."""

import io

import torch
from celeriac.testing import read_file, run_task

from acme_torch.contracts import TrainNetwork
from acme_torch.tasks import train_network


def weights(ran):
    return torch.load(io.BytesIO(read_file(ran.result.weights.uri)), weights_only=True)


def test_it_learns():
    ran = run_task(train_network, TrainNetwork(epochs=100))
    assert ran.result.accuracy_ratio > 0.95
    assert [report["current"] for report in ran.progress] == list(range(1, 101))
    assert ran.progress[-1]["message"].startswith("loss 0.")
    assert [artifact.name for artifact in ran.artifacts[:2]] == ["state-000025.pt", "state-000050.pt"]


def test_an_interrupted_training_ends_with_the_same_weights():
    whole = run_task(train_network, TrainNetwork(epochs=40, checkpoint_every=10))
    begun = run_task(train_network, TrainNetwork(epochs=25, checkpoint_every=10))
    rest = run_task(train_network, TrainNetwork(epochs=40, checkpoint_every=10), last_checkpoint=begun.checkpoint)
    assert (whole.result.resumed_at, rest.result.resumed_at) == (0, 20)
    assert rest.result.loss == whole.result.loss
    assert all(
        torch.equal(one, other) for one, other in zip(weights(whole).values(), weights(rest).values(), strict=True)
    )


def test_other_seeds_train_other_networks():
    one, other = (run_task(train_network, TrainNetwork(epochs=1, seed=seed)) for seed in (1, 2))
    assert one.result.loss != other.result.loss
