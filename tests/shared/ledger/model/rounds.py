"""One round of the keeper, in plain Python."""

from __future__ import annotations

from collections.abc import Iterator

from tests.shared.ledger.model.places import RECENT, Message
from tests.shared.ledger.model.tasks import Task
from tests.shared.ledger.model.world import World

Actions = Iterator[tuple[str, str]]


def tend(world: World) -> list[tuple[str, str]]:
    """Return what the keeper should do, and do it to the model."""
    actions: list[tuple[str, str]] = []
    for part in (_due, _expired, _lapsed, _lost_messages, _holds, _callbacks, _outbox, _retention):
        actions += part(world)  # before the next part: each goes by what those before it changed
    for what, _ in actions:
        world.counters[f"kept|{what}"] += 1
    return actions


def _by_id(world: World) -> list[Task]:
    return sorted(world.tasks.values(), key=lambda task: task.id)


def _due(world: World) -> Actions:
    for task in [task for task in _by_id(world) if task.due == "now"]:
        task.due = None
        world.enter(task, "queued")
        if task.has_message:
            world.publish(task)
        world.tell(task)
        yield "published", task.id


def _expired(world: World) -> Actions:
    for job in [task for task in _by_id(world) if task.expiry == "now"]:
        if not job.started and not job.is_final:
            world.expire(job)
            yield "expired", job.id


def _lapsed(world: World) -> Actions:
    for task in [task for task in _by_id(world) if task.lapsed and not world.amnesty]:
        yield world.lose(task), task.id


def _lost_messages(world: World) -> Actions:
    # Also of a list that never had a message: a step is published by Celery, and that message can be lost.
    for name in {task.broker_list for task in world.tasks.values() if task.published is not None}:
        published = world.published(name)
        known, passed = world.first_known(name)
        if known is None:
            continue
        bound = min(RECENT - 10, known - 1)  # older than anything that was published in this run
        lost = [world.tasks[each] for each, score in published.items() if score <= bound and each not in passed]
        for task in sorted(lost, key=lambda task: (task.published, task.id), reverse=True):
            if task.published_long_ago:
                _republish(world, task)
                yield "republished", task.id


def _republish(world: World, task: Task) -> None:
    if task.has_message:
        world.publish_first(task, task.published)
        return
    world.note_published(task)
    parts = [part for part in task.after if part.has_message]
    group = f"group-{task.root.id}"
    if parts and f'"{group}"' in (parts[0].entry.message or ""):
        world.chords[group] = len(parts)
    for part in parts:
        world.lists.setdefault(part.broker_list, []).append(Message(part.id, None))


def _holds(world: World) -> Actions:
    for queue in sorted(world.held_queues):
        for task_id in world.let_go(queue):
            yield "published", task_id
    for key in sorted(world.limited_keys):
        for task in world.tasks.values():
            if task.key == key and task.admitted == "stale":
                task.admitted = None
        world.admit(key)


def _callbacks(world: World) -> Actions:
    for job in world.jobs():
        if job.awaits_callback:
            yield "callback", job.id


def _outbox(world: World) -> Actions:
    for task in world.tasks.values():
        if task.in_outbox == "stale":
            yield "unpublished", task.id


def _retention(world: World) -> Actions:
    for job in [job for job in _by_id(world) if job.ended == "now"]:
        if world.is_referred(job.ids):
            job.ended, job.prolonged = "later", True
        else:
            for task_id in world.forget(job):
                yield "forgotten", task_id
