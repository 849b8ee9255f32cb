"""What a record keeps of its message, so that the message is kept once: on its list.

Messages of single jobs have a form that is the same for all, apart from what the record has anyway (id, kind, queue,
parameters) and a few other values. These values are the record's `envelope`. The script makes the message from it
again, to the byte, if it is lost or has to wait in the ledger. A message of another form is kept whole in the record.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from functools import lru_cache

#: Forms by number. Records in Redis name theirs, so a form is only added, never changed.
_FORMS = {
    1: '{"body": "<body>", "content-encoding": "utf-8", "content-type": "application/json", "headers": {"lang": "py", '
    '"task": "<kind>", "id": "<id>", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, '
    '"retries": 0, "timelimit": <limits>, "root_id": "<id>", "parent_id": null, "argsrepr": "()", '
    '"kwargsrepr": "<shown>", "origin": <origin>, "ignore_result": null, "replaced_task_nesting": 0, '
    '"stamped_headers": null, "stamps": {}}, "properties": {"correlation_id": "<id>", "reply_to": <reply_to>, '
    '"delivery_mode": 2, "delivery_info": {"exchange": "", "routing_key": "<queue>"}, "priority": <priority>, '
    '"body_encoding": "base64", "delivery_tag": "<id>"}}',
}
_OTHERS = ("limits", "origin", "reply_to", "priority")  # the values of the envelope, in this order
_BEFORE, _AFTER = "[[], ", ', {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'
_SHOWN = 256  # characters of the parameters that a message shows as they are
_LARGEST = 4_096  # characters of parameters: the script encodes them slowly
_HEADERS = '"headers": {'


def has_envelope(params: str) -> bool:
    """Return whether the script can make the message of a job with these parameters, if it has a known form."""
    shown = params[:_SHOWN]
    return len(params) <= _LARGEST and shown.isascii() and shown.isprintable()


def envelope_of(message: str, *, job_id: str, kind: str, queue: str, params: str) -> str | None:
    """Return the envelope of a message, or None if it has another form."""
    if not has_envelope(params):
        return None
    latest = _latest(kind, queue)  # that of the last such message is mostly right, and compared in a tenth of the time
    if not (latest and composed(latest[0], job_id=job_id, kind=kind, queue=queue, params=params) == message):
        latest[:] = [envelope for envelope in (_found(message, job_id, kind, queue, params),) if envelope]
    return latest[0] if latest else None


@lru_cache(maxsize=1_024)
def _latest(kind: str, queue: str) -> list[str]:  # noqa: ARG001 - the key of the cache
    return []


def _found(message: str, job_id: str, kind: str, queue: str, params: str) -> str | None:
    rest = message.replace(_body(params), "<body>", 1).replace(job_id, "<id>")
    rest = rest.replace(f'"kwargsrepr": "{_escaped(params[:_SHOWN])}"', '"kwargsrepr": "<shown>"', 1)
    for number, form in _FORMS.items():
        pattern = re.escape(form.replace("<kind>", kind).replace("<queue>", queue))
        for name in _OTHERS:
            pattern = pattern.replace(f"<{name}>", f"(?P<{name}>[^\\n]*?)")
        if found := re.fullmatch(pattern, rest):
            return "\n".join((str(number), *(found[name] for name in _OTHERS)))
    return None


def composed(envelope: str, *, job_id: str, kind: str, queue: str, params: str) -> str:
    """Return the message of an envelope, as the script makes it."""
    return _form(envelope, kind, queue) % {
        "id": job_id,
        "body": _body(params),
        "shown": _escaped(params[:_SHOWN]),
    }


@lru_cache(maxsize=1_024)
def _form(envelope: str, kind: str, queue: str) -> str:
    """Return a form with all but the parts of a single job filled in, for the operator `%`."""
    number, *others = envelope.split("\n")
    values = dict(zip(_OTHERS, others, strict=True)) | {"kind": kind, "queue": queue}
    texts = {name: value.replace("%", "%%") for name, value in values.items()}
    return re.sub(r"<(\w+)>", lambda found: texts.get(found[1], f"%({found[1]})s"), _FORMS[int(number)])


def numbered(message: str, publication: int = 1) -> str:
    """Return a message with the number of its publication: see `queues.lua` of the script."""
    return message.replace(_HEADERS, f'{_HEADERS}"celeriac_publication": {publication}, ', 1)


def lua_forms() -> str:
    """Return the forms as Lua, for the script."""
    forms = ", ".join(f"['{number}'] = [==[{form}]==]" for number, form in _FORMS.items())
    return (
        f"local FORMS = {{ {forms} }}\n"
        f"local BEFORE_PARAMS, AFTER_PARAMS, SHOWN = [==[{_BEFORE}]==], [==[{_AFTER}]==], {_SHOWN}"
    )


def _body(params: str) -> str:
    return b2a_base64(f"{_BEFORE}{params}{_AFTER}".encode(), newline=False).decode()


def _escaped(text: str) -> str:
    """Return printable ASCII as the inside of a text in JSON."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
