"""`python -m cli.demo`."""

import sys
from contextlib import suppress

from cli.demo.demo import main

with suppress(BrokenPipeError):
    sys.exit(main())
