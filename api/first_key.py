"""Make a key past HTTP in the gateway's image, which has no command line: `python3 -m api.first_key --preset admin`."""

from __future__ import annotations

import argparse
import sys

from shared.access.callers import DEFAULT_TENANT, UNRESTRICTED
from shared.access.past_http import NotWritten, write_here
from shared.access.scopes import PRESETS, Scope
from shared.access.terms import EXPIRES_IN_S, KeyTerms


def main() -> None:
    """Print a new key of the ledger that the environment names, and nothing else."""
    parser = argparse.ArgumentParser(prog="python3 -m api.first_key", description=__doc__)
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--preset", choices=[*PRESETS], help="the scopes of a usual role")
    chosen.add_argument("--scope", choices=[*Scope], action="append", help="a scope; may be given several times")
    parser.add_argument("--name", default="the first key", help="what it is for")
    given = parser.parse_args()
    scopes = PRESETS[given.preset] if given.preset else frozenset(map(Scope, given.scope))
    try:
        new = write_here(KeyTerms(DEFAULT_TENANT, given.name, scopes, UNRESTRICTED, "first_key", EXPIRES_IN_S))
    except NotWritten as failure:
        sys.exit(str(failure))
    print(new.text)  # noqa: T201 - it is what the caller wants


if __name__ == "__main__":
    main()
