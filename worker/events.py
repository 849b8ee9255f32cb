"""Celery's events of tasks, published a few times a second.

Celery publishes them at each turn of the main loop: a third of what the loop does for short jobs.
"""

from __future__ import annotations

from typing import Any

from celery import bootsteps

_AFTER_S = 0.2  # from the first event; Celery publishes sooner when there are 24


class EventsTogether(bootsteps.StartStopStep):
    """Has the events of tasks wait for those of the next moment. Each keeps the time at which it happened."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, parent: Any) -> None:
        """Begin with the dispatcher of this connection. `parent` is Celery's consumer, whose types lack most of it."""
        dispatcher = parent.event_dispatcher
        is_due = False

        def publish() -> None:
            nonlocal is_due
            is_due = False
            dispatcher.flush()

        def publish_later() -> None:
            nonlocal is_due
            if not is_due:
                is_due = True
                parent.timer.call_after(_AFTER_S, publish)

        if dispatcher.on_send_buffered is not None:  # else it does not gather events
            dispatcher.on_send_buffered = publish_later

    def stop(self, parent: Any) -> None:
        """Publish what waits: no timer runs from here on."""
        dispatcher = parent.event_dispatcher
        if dispatcher is not None and dispatcher.on_send_buffered is not None:
            dispatcher.on_send_buffered = parent.on_send_event_buffered
            dispatcher.flush()
