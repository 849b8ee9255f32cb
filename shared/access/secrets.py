"""The text of an API key: `cel_<8 characters of id>_<24 at random><6 of checksum>`, all in base62.

The prefix lets a scanner recognise a key; the checksum lets a mistyped one be refused without asking the ledger.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

ID_LENGTH = 8
_SECRET_LENGTH = 24  # 142 bits
_CHECK_LENGTH = 6
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM = re.compile(
    rf"cel_([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}[0-9A-Za-z]{{{_CHECK_LENGTH}}}", re.ASCII
)


def new_id() -> str:
    """Return the id of a new key. Two of a ledger's may be equal once in a billion; the ledger says so."""
    return _random(ID_LENGTH)


def new_secret(key_id: str) -> str:
    """Return the text of a key with this id, and a new secret in it."""
    text = f"cel_{key_id}_{_random(_SECRET_LENGTH)}"
    return text + _check(text)


def id_of(text: str) -> str | None:
    """Return the id of the key with this text; None if no key has it: another form, or a wrong checksum."""
    found = _FORM.fullmatch(text)
    return found[1] if found and _check(text[:-_CHECK_LENGTH]) == text[-_CHECK_LENGTH:] else None


def digest(text: str) -> str:
    """Return the SHA-256 of a key's text, in hexadecimal. So long a secret needs no slow hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _check(text: str) -> str:
    number, digits = zlib.crc32(text.encode("ascii")), ""
    for _ in range(_CHECK_LENGTH):
        number, digit = divmod(number, 62)
        digits = _BASE62[digit] + digits
    return digits
