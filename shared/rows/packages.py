"""Which packages the result database needs; this module imports none of them."""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from shared.errors import DefinitionError

EXTRA = "pip install 'celeriac[database]'"


def refuse_missing_packages(database_url: str) -> None:
    """Raise `DefinitionError` if there is a result database and SQLAlchemy or its driver is not installed."""
    if not database_url:
        return
    _, _, driver = urlsplit(database_url).scheme.partition("+")
    needed = ["sqlalchemy", *([driver] if driver in {"psycopg", "psycopg2", "pymysql"} else [])]
    if absent := [name for name in needed if find_spec(name) is None]:
        raise DefinitionError(f"CELERY_RESULT_BACKEND names a database, which needs {', '.join(absent)}. Run: {EXTRA}")
