"""Write the OpenAPI document of the repository.

    python -m api.document openapi.json

It depends only on the source, not on environment variables or the Python version. The catalogue is read when
`api.app` is imported, so that happens in another process without our variables.
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
    """Write the document to the given path, or to standard output; return the exit code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    made = subprocess.run([sys.executable, "-c", _PRINT], env=environment, stdout=subprocess.PIPE, check=False)
    if made.returncode == 0 and arguments:
        Path(arguments[0]).write_bytes(made.stdout)
    else:
        sys.stdout.buffer.write(made.stdout)
    return made.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
