"""An engine for the result database whose calls end in bounded time."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_CONNECT_S = 3


def open_database(url: str, *, connections: int, timeout_s: float = 10) -> sa.Engine:
    """Return an engine with at most this number of connections, whose statements end within about `timeout_s`.

    It connects on its first use. A broken connection is replaced on the next one.
    """
    parsed = sa.make_url(url)
    engine = sa.create_engine(
        parsed,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
        pool_pre_ping=True,
        pool_recycle=300,
        isolation_level=None if parsed.get_backend_name() == "sqlite" else "READ COMMITTED",
        connect_args=_bounds(parsed, timeout_s),
        **({"poolclass": sa.QueuePool} if parsed.get_backend_name() == "sqlite" else {}),
    )
    if engine.dialect.name == "sqlite":
        _begin_at_once(engine)
    return engine


def _bounds(url: sa.URL, timeout_s: float) -> dict[str, Any]:
    """Return the driver's arguments that bound its calls; those that the URL names stay as they are there."""
    milliseconds = int(timeout_s * 1000)
    bounds: dict[str, Any] = {}
    match url.get_backend_name():
        case "postgresql":
            bounds = {
                "connect_timeout": _CONNECT_S,
                "tcp_user_timeout": milliseconds,
                "options": f"-c statement_timeout={milliseconds} -c timezone=UTC",
                "application_name": "celeriac",
            }
        case "mysql" | "mariadb" if url.get_driver_name() == "pymysql":
            bounds = {
                "connect_timeout": _CONNECT_S,
                "read_timeout": timeout_s,
                "write_timeout": timeout_s,
                "charset": "utf8mb4",
            }
        case "sqlite":
            bounds = {"timeout": timeout_s, "check_same_thread": False}
    return {name: value for name, value in bounds.items() if name not in url.query}


def _begin_at_once(engine: sa.Engine) -> None:
    """Lock the file when a transaction begins: one that reads first could not write after another has written."""

    @sa.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
