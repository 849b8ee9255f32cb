"""Keys: list, make, show, revoke, roll; and who the caller is."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from api.access.guard import CallerOf
from api.access.known import KnownKeys
from api.access.schemas import ApiKey, ApiKeyPage, ApiKeyWithText, KeyRequest, KeyRestrictions, Me, RollRequest
from api.http.bodies import Body
from api.http.models import at, at_or_none
from api.http.page_tokens import Pages, page_token
from api.http.problems import FieldError, Problem, problems, wrong_field
from shared.access.callers import Caller, Restrictions
from shared.access.keyring import MAX_KEYS, Full, KeyRecord, NewKey, place_of
from shared.access.scopes import PRESETS, Scope
from shared.access.terms import KeyTerms

KEY: Body[KeyRequest] = Body("KeyRequest", KeyRequest, envelope=1)
ROLL: Body[RollRequest] = Body("RollRequest", RollRequest, envelope=1)
BODIES: tuple[Body[Any], ...] = (KEY, ROLL)
_PATH = "keys"
_REFUSALS = problems(400, 413, 415, 422, 503, 507)

router = APIRouter(tags=["keys"])


async def _keys(request: Request) -> KnownKeys:
    keys: KnownKeys = request.app.state.keys
    return keys


Keys = Annotated[KnownKeys, Depends(_keys)]


async def _found(
    key_id: Annotated[str, Path(description="The key's id.", examples=["4Fh2kQ9x"])], keys: Keys, caller: CallerOf
) -> KeyRecord:
    """Return a key of the caller's tenant. Raises `Problem` (404)."""
    looked = await keys.keyring.look(key_id)
    if looked.key is None or looked.key.tenant != caller.tenant:
        raise Problem(404, "unknown_key", f"There is no key {key_id[:100]}. GET /keys lists them.")
    return looked.key


FoundKey = Annotated[KeyRecord, Depends(_found)]


@router.get("/me", summary="Who am I?", responses=problems(503))
async def get_me(caller: CallerOf) -> Me:
    """Return the caller: tenant, key, scopes and restrictions."""
    return Me(
        tenant=caller.tenant,
        authentication="none" if caller.key_id is None else "key",
        key_id=caller.key_id,
        scopes=sorted(caller.scopes),
        restrictions=KeyRestrictions.of(caller.restrictions),
    )


@router.get("/keys", summary="List keys", responses=problems(422, 503))
async def list_keys(keys: Keys, caller: CallerOf, wanted: Annotated[Pages, Query()]) -> ApiKeyPage:
    """Return the keys of the caller's tenant, newest first, also revoked and expired ones."""
    found = await keys.keyring.list(caller.tenant, limit=wanted.page_size + 1, before=wanted.below(_PATH))
    page = found[: wanted.page_size]
    more = len(found) > len(page)
    return ApiKeyPage(
        keys=[ApiKey(**_shown(key)) for key in page],
        next_page_token=page_token(place_of(page[-1]), _PATH) if more else None,
    )


@router.post(
    "/keys",
    status_code=201,
    response_model=ApiKeyWithText,
    summary="Make a key",
    openapi_extra=KEY.document(),
    responses={**_REFUSALS, **problems(409)},
)
async def create_key(request: Request, keys: Keys, caller: CallerOf) -> ApiKeyWithText:
    """Make a key that allows at most what the caller's does. Its text is in this answer only."""
    wanted, _ = await KEY.read(request)
    scopes = _scopes_of(wanted)
    _refuse_more(caller, scopes, wanted.restrictions)
    terms = KeyTerms(caller.tenant, wanted.name, scopes, wanted.restrictions, caller.name, wanted.expires_in_s)
    try:
        return _with_text(await keys.keyring.create(terms), keys)
    except Full:
        raise Problem(409, "too_many_keys", f"There are already {MAX_KEYS} keys, the maximum.") from None


@router.get("/keys/{key_id}", summary="Show a key", responses=problems(404, 503))  # noqa: FAST003 - FoundKey takes it
async def get_key(found: FoundKey) -> ApiKey:
    """Return the key, without its text."""
    return ApiKey(**_shown(found))


@router.post("/keys/{key_id}/revoke", summary="Revoke a key", responses=problems(404, 503, 507))  # noqa: FAST003 - the same
async def revoke_key(found: FoundKey, keys: Keys) -> ApiKey:
    """Let nobody use the key from now on. The slots of its schedules are skipped; its jobs continue."""
    revoked = await keys.keyring.revoke(found.id)
    keys.forget(found.id)
    return ApiKey(**_shown(revoked))


@router.post(
    "/keys/{key_id}/roll",  # noqa: FAST003 - FoundKey takes it
    response_model=ApiKeyWithText,
    summary="Roll a key",
    openapi_extra=ROLL.document(required=False),
    responses={**_REFUSALS, **problems(404, 409)},
)
async def roll_key(found: FoundKey, request: Request, keys: Keys, caller: CallerOf) -> ApiKeyWithText:
    """Give the key a new secret; the present one stays valid for `overlap_s`. The new text is in this answer only."""
    wanted, _ = await ROLL.read_or(RollRequest(), request)
    _refuse_more(caller, found.scopes, found.restrictions)  # who gets its secret can do what it allows
    rolled = await keys.keyring.roll(found.id, overlap_s=wanted.overlap_s, expires_in_s=wanted.expires_in_s)
    if not isinstance(rolled, NewKey):
        what = "Make another one." if rolled == "revoked" else "Set expires_in_s, or make another one."
        raise Problem(409, f"key_{rolled}", f"The key is {rolled}. {what}")
    return _with_text(rolled, keys)


def _scopes_of(wanted: KeyRequest) -> frozenset[Scope]:
    if (wanted.preset is None) == (wanted.scopes is None):
        raise wrong_field("/scopes", "Set either 'preset' or 'scopes'.")
    return PRESETS[wanted.preset] if wanted.preset is not None else frozenset(wanted.scopes or ())


def _refuse_more(caller: Caller, scopes: frozenset[Scope], restrictions: Restrictions) -> None:
    """Raise `Problem` (403) if a key with these would allow more than the caller's."""
    if more := sorted(scopes - caller.scopes):
        raise _exceeded("/scopes", f"Your key does not have {', '.join(more)}, so it cannot give that.")
    if (name := caller.restrictions.exceeded_by(restrictions)) is not None:
        raise _exceeded(f"/restrictions/{name}", "Your key is restricted here: give no more than it has.")


def _exceeded(pointer: str, message: str) -> Problem:
    return Problem(403, "exceeds_own_key", message, errors=[FieldError(pointer=pointer, message=message)])


def _with_text(new: NewKey, keys: KnownKeys) -> ApiKeyWithText:
    keys.forget(new.record.id)
    keys.has_keys = True  # at once, also for the next request of this connection
    return ApiKeyWithText(**_shown(new.record), key=new.text)


def _shown(key: KeyRecord) -> dict[str, Any]:
    now_ms = time.time_ns() // 1_000_000
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "restrictions": KeyRestrictions.of(key.restrictions),
        "standing": key.standing(now_ms),
        "created_by": key.created_by,
        "created_at": at(key.created_at),
        "expires_at": at(key.expires_at),
        "last_used_at": at_or_none(key.last_used_at),
        "revoked_at": at_or_none(key.revoked_at),
        "former_until": at(key.former_until) if key.former_until > now_ms else None,
    }
