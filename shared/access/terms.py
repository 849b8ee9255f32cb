"""What a new key is to be, and how long it lasts."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from shared.access.callers import Restrictions
from shared.access.scopes import Scope

DAY_S = 86_400
EXPIRES_IN_S = 365 * DAY_S
MOST_EXPIRES_IN_S = 3_650 * DAY_S


class KeyTerms(NamedTuple):
    """What a new key is to be."""

    tenant: str
    name: str
    scopes: Collection[Scope]
    restrictions: Restrictions
    created_by: str
    expires_in_s: float
