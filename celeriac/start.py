"""Start a program of this service like `python -m`, with our packages before those of a user with the same names.

    python -P .../celeriac/start.py celery -A worker.app worker

`python -m`, uvicorn and celery put the current directory first on the path, and PYTHONPATH precedes installed packages:
a folder `api/` or `worker/` there would shadow ours. Our root at the front of the path would prevent that. However, for
an installed wheel it is site-packages, and all packages there would precede the standard library. So only these names
are found at our root, whatever the path is. Everything else, including packages in the current directory, is found as
by `python -m`.
"""

from __future__ import annotations

import runpy
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

FILE = Path(__file__).resolve()
ROOT = FILE.parents[1]
PACKAGES = frozenset({"api", "celeriac", "cli", "shared", "worker"})


class OursFirst:
    """Finds our packages at our root; in an image without one of them, its name is free."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return the spec of a package of ours, `None` for every other module."""
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


def put_ours_first() -> None:
    """Make this process find our packages before others with the same names."""
    if OursFirst not in sys.meta_path:
        sys.meta_path.insert(0, OursFirst)


def put_cwd_on_path() -> None:
    """Make packages in the current directory importable, also with `-P`."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def command(*words: str) -> list[str]:
    """Return the command line that runs the module `words[0]` with the other words as arguments."""
    return [sys.executable, "-P", str(FILE), *words]


if __name__ in {"__main__", "__mp_main__"}:  # children of spawning programs (`uvicorn --workers`) run this file again
    put_ours_first()
    put_cwd_on_path()

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__")
