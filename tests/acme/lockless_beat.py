"""The workers' application for a beat that takes no lock, so that several of them tick at once."""

from worker.app import app

app.conf.redbeat_lock_key = None

__all__ = ["app"]
