"""No log shows a key, also not the server's own of every request, whose path a client may have put one into."""

from __future__ import annotations

import logging

from shared.texts import redact


class WithoutKeys(logging.Filter):
    """Redacts the arguments of each line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every line through, without what no log may show."""
        if isinstance(record.args, tuple):
            record.args = tuple(redact(one) if isinstance(one, str) else one for one in record.args)
        return True


def hide_keys() -> None:
    """Keep keys out of uvicorn's log of requests."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(one, WithoutKeys) for one in log.filters):
        log.addFilter(WithoutKeys())
