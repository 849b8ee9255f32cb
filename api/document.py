"""Writes the OpenAPI document as it lies in the repository.

    python -m api.document openapi.json

It depends on the source alone: not on environment variables, not on the Python that wrote it. The catalogue is read
when `api.app` is imported, so that happens in a process of its own, which has none of our variables.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_OWN_VARIABLES = ("CELERIAC_", "CELERY_")
_PRINT = """
import sys
from api.app import create_app
from api.http.openapi import text_of
sys.stdout.reconfigure(encoding="utf-8")
sys.stdout.write(text_of(create_app().openapi()))
"""


def main(arguments: list[str]) -> int:
    """Write the document to the path given, or to standard output; return the exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    made = subprocess.run([sys.executable, "-c", _PRINT], env=environment, stdout=subprocess.PIPE, check=False)
    if made.returncode == 0 and arguments:
        Path(arguments[0]).write_bytes(made.stdout)
    else:
        sys.stdout.buffer.write(made.stdout)
    return made.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
