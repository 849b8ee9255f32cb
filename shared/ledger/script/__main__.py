"""Print the whole script, for luacheck."""

from __future__ import annotations

import sys

from shared.ledger.keys import Keys
from shared.ledger.script import library

if __name__ == "__main__":
    sys.stdout.write(library(Keys()).code)
