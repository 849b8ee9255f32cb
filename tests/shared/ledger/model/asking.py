"""Rules of clients, operators and brokers elsewhere."""

from __future__ import annotations

from hypothesis import strategies as st

from shared.ledger.records import Entry, Gone, Unknown
from tests.shared.ledger.model.machine import LedgerMachine, action, message
from tests.shared.ledger.model.tasks import KEY_OF_QUEUE, RETENTION_MS

_queues = st.sampled_from(list(KEY_OF_QUEUE))


class Asking(LedgerMachine):
    """See the module."""

    @action(5, when=lambda self: self.world.tasks)
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a job; or a step, as Celery's own control commands do."""
        task = self.pick(data, self.world.tasks.values(), rather=lambda task: task.state in {"running", "scheduled"})
        was = task.state
        self.begin()
        answer = self.ledger.cancel(task.id, reason="r")
        assert answer == self.world.cancel(task)
        what = "workflow" if task.steps else "step" if task.job else "job"
        self.saw(f"cancel: {what}, {was} {answer if was != answer else 'already'}")

    @action()
    def pause(self, data: st.DataObject) -> None:
        queue = data.draw(_queues, label="queue")
        self.begin()
        self.ledger.call("pause", {"queue": queue})
        self.world.paused.add(queue)

    @action(4, when=lambda self: self.world.paused)
    def resume(self, data: st.DataObject) -> None:
        held = sorted(self.world.held_queues)
        queue = data.draw(st.sampled_from([*KEY_OF_QUEUE, *held * 3]), label="queue")
        let_go = data.draw(st.booleans(), label="let_go")
        self.begin()
        self.ledger.call("resume", {"queue": queue})
        self.world.paused.discard(queue)
        if let_go:  # else the keeper does
            count = len(self.world.let_go(queue))
            assert self.ledger.call("let_go", {"queue": queue, "limit": 100}) == count
            self.saw(f"let go: {'some' if count else 'none'}")

    @action(2, when=lambda self: any(task.in_outbox for task in self.world.tasks.values()))
    def reaches_the_broker_elsewhere(self, data: st.DataObject) -> None:
        """Note what the gateway or the keeper has published from the outbox; a word of an earlier time says nothing."""
        task = self.pick(data, [task for task in self.world.tasks.values() if task.in_outbox])
        self.begin()
        queue, text, publication = self.ledger.messages([task.id])[task.id]
        assert (queue, text) == (task.queue, task.entry.message or message(task.id))
        assert publication == task.publishes + 1
        if data.draw(st.booleans(), label="is_late"):
            self.ledger.published({task.id: task.publishes})
            self.saw("outbox: told late")
            return
        self.ledger.published({task.id: publication})
        task.in_outbox = None
        self.saw(f"outbox: published {task.state}")
        if task.state == "queued":
            self.world.note_published(task)

    @action(when=lambda self: self.world.jobs())
    def call_back(self, data: st.DataObject) -> None:
        """Submit the job that tells of an end: once, and for those only that asked for it."""
        job = self.pick(data, self.world.jobs(), rather=lambda job: job.awaits_callback)
        made = Entry(
            id=(callback_id := self.next_id()),
            kind="maintenance.deliver_callback",
            queue="ml",
            priority=4,
            params="{}",
            retention_ms=RETENTION_MS,
            max_crashes=2,
            max_retries=2,
            message=message(callback_id),
            tags=("callback",),
        )
        self.begin()
        assert self.ledger.call_back(job.id, made) == job.awaits_callback
        self.saw(f"callback: {'accepted' if job.awaits_callback else 'known'}")
        if job.awaits_callback:
            self.world.accept([made])
            job.awaits_callback = False

    @action(when=lambda self: self.world.tasks)
    def forget(self, data: st.DataObject) -> None:
        task = self.pick(data, self.world.tasks.values(), rather=lambda task: task.ended)
        self.begin()
        answer, *ids = self.ledger.call("forget", {"id": task.id, "files_ms": 600_000})
        assert (answer, ids) == (self.world.forget_on_request(task), task.ids if answer == "forgotten" else [])
        self.saw(f"forget: {answer}")

    @action(when=lambda self: self.world.gone)
    def read_what_was_forgotten(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.world.gone)))
        assert self.ledger.read(job_id) == Gone()
        assert self.ledger.cancel(job_id, reason="r") == "unknown"
        assert self.ledger.call("forget", {"id": job_id, "files_ms": 600_000}) == ["unknown"]
        assert self.ledger.read(self.next_id()) == Unknown()
        self.saw("read: gone")
