"""The installed script `celeriac`."""

from __future__ import annotations

import runpy
import sys

from celeriac import start
from celeriac.extras import how_to_install, missing


def main() -> None:
    """Run the command line, whatever PYTHONPATH is. Exits with 1 and the command to run if packages are missing."""
    start.put_ours_first()
    if absent := missing("cli"):
        sys.exit(f"celeriac: the command line needs {', '.join(absent)}. Run: {how_to_install('cli')}")
    runpy.run_module("cli.app", run_name="__main__")
