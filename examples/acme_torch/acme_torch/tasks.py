"""The task. Only workers import this module."""

import torch
from celeriac import Run

from acme_torch.contracts import Trained, TrainNetwork
from acme_torch.network import Training


@TrainNetwork.task
def train_network(job: TrainNetwork, run: Run) -> Trained:
    """Train; a later attempt goes on at the last checkpoint, and ends with the same weights."""
    training = Training(job.hidden_count, job.learning_rate, job.seed)
    begun, loss = 0, 0.0
    if last := run.last_checkpoint:
        training.go_on(torch.load(run.local(last["state"]), weights_only=True))
        begun, loss = last["epoch"], last["loss"]
        run.log("going on", epoch=begun)
    for epoch in range(begun + 1, job.epochs + 1):
        loss = training.run_epoch()
        run.progress(epoch, job.epochs, unit="epochs", message=f"loss {loss:.4f}")
        if epoch % job.checkpoint_every == 0:
            store_checkpoint(run, training, epoch, loss)
    weights = run.scratch / "weights.pt"
    torch.save(training.network.state_dict(), weights)
    return Trained(weights=run.publish(weights), loss=loss, accuracy_ratio=training.accuracy_ratio(), resumed_at=begun)


def store_checkpoint(run: Run, training: Training, epoch: int, loss: float) -> None:
    """Publish the state as a file, then note the file: in this order, the noted file is always there."""
    local = run.scratch / "state.pt"
    torch.save(training.state(), local)
    state = run.publish(local, name=f"state-{epoch:06d}.pt")
    run.checkpoint({"epoch": epoch, "loss": loss, "state": state.uri})
