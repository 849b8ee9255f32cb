"""Start a program of this service as `python -m` does, with our packages found before a user's of the same names.

    python -P .../celeriac/start.py celery -A worker.app worker

`python -m`, uvicorn and celery each put the current directory first on the path, and PYTHONPATH comes before what is
installed: a folder `api/` or `worker/` there would be taken for ours. Our root at the front of the path would cure
that, but the root of an installed wheel is site-packages, and all that lies there would go before the standard
library. So these names alone are found at our root, whatever the path says; everything else, also what a team keeps in
the current directory, is found as `python -m` finds it.

`-P` (or PYTHONSAFEPATH, with which it works the same) keeps the folder of this file off the path.
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
    """Finds our packages at our root; an image without one of them leaves its name to others."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return where a package of ours is, `None` for every other module."""
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


def put_ours_first() -> None:
    """Let this process find our packages before others of the same names."""
    if OursFirst not in sys.meta_path:
        sys.meta_path.insert(0, OursFirst)


def put_cwd_on_path() -> None:
    """Let this process import what lies in the current directory, also under `-P`."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)


def command(*words: str) -> list[str]:
    """Return the command line that runs the module `words[0]` with the rest as its arguments."""
    return [sys.executable, "-P", str(FILE), *words]


def command_line() -> None:
    """Run the command `celeriac`, whatever PYTHONPATH names: the entry point of the installed script."""
    put_ours_first()
    runpy.run_module("cli.app", run_name="__main__")


if __name__ in {"__main__", "__mp_main__"}:  # what spawns (`uvicorn --workers`) runs this file again in its children
    put_ours_first()
    put_cwd_on_path()

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__")
