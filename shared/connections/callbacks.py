"""Callbacks: the URLs that may receive the outcome of a job, and the secrets that sign it.

The client chooses the URL, so it is untrusted until checked: here at submission, without DNS, and again by the
worker, which resolves the name and connects to checked addresses only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import socket
from functools import lru_cache
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.connections.addresses import Address, AllowedHosts
from shared.environment import ByCommas, read

_SECRET_PREFIX = "whsec_"  # noqa: S105 - how such secrets begin, not one of them
_SHORTEST_KEY_BYTES = 24  # and the longest 64: Standard Webhooks, "Signature scheme"
_LONGEST_KEY_BYTES = 64
_LONGEST_KEY_HOST = 40  # characters; a concurrency key has at most 64
_DEFAULT_PORTS = {"http": 80, "https": 443}


class CallbackSettings(BaseSettings):
    """Settings about clients' URLs, which must be the same for gateway and workers."""

    model_config = SettingsConfigDict(
        env_prefix="CELERIAC_", populate_by_name=True, extra="ignore", hide_input_in_errors=True
    )

    http_allow_hosts: ByCommas = Field(
        default=(),
        description="Internal hosts that sources and callbacks may name: names, addresses or CIDRs, each with an "
        "optional `:port`, separated by commas. Public addresses need no entry.",
        examples=["files.internal,10.2.0.0/16,127.0.0.1:8080"],
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="Signs callbacks: `whsec_` and 24 to 64 random bytes in base64. To rotate it, set the new and the "
        "old secret, separated by a space: both sign until every receiver has the new one.",
    )

    @field_validator("http_allow_hosts")
    @classmethod
    def _understood(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowedHosts.of(value)
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _strong(cls, value: SecretStr) -> SecretStr:
        for secret in value.get_secret_value().split():
            if not is_secret(secret):
                raise ValueError(  # without any part of the secret
                    "CELERIAC_WEBHOOK_SECRET must be `whsec_` and 24 to 64 random bytes in base64; create one with: "
                    "echo whsec_$(openssl rand -base64 32)"
                )
        return value

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """The secrets that sign a callback, the newest first."""
        return tuple(self.webhook_secret.get_secret_value().split())

    @property
    def allowed_hosts(self) -> AllowedHosts:
        """The internal hosts that clients may use."""
        return AllowedHosts.of(self.http_allow_hosts)


@lru_cache
def callback_settings() -> CallbackSettings:
    """Return the settings of this process, read once."""
    return read(CallbackSettings)


def is_secret(text: str) -> bool:
    """Return whether this is a secret that signs callbacks."""
    return _SHORTEST_KEY_BYTES <= _key_length(text) <= _LONGEST_KEY_BYTES


def problem_with_callback(url: str, settings: CallbackSettings) -> str | None:
    """Return why callbacks cannot be sent to `url`, with a remedy; None if they can. Does not use DNS."""
    if not settings.webhook_secrets:
        return "Callbacks are disabled, because CELERIAC_WEBHOOK_SECRET is not set. Set it, or poll the job."
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return "It is not a URL: correct its host or port."
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        return "Use an absolute https:// URL with a host."
    if "@" in parts.netloc:
        return "Remove user and password from the URL; the receiver can verify the callback's signature instead."
    return _problem_with_host(parts.scheme, parts.hostname, port, settings.allowed_hosts)


def concurrency_key_of(url: str) -> str:
    """Return the key of host and port of a checked `url`, under which callbacks count; what does not fit is hashed."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if len(host) > _LONGEST_KEY_HOST or not re.fullmatch(r"[a-z0-9._:-]+", host):
        host = hashlib.sha256(host.encode()).hexdigest()[:_LONGEST_KEY_HOST]
    return f"callback:{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}"


def _problem_with_host(scheme: str, host: str, port: int, allowed: AllowedHosts) -> str | None:
    address = _literal(host)
    if allowed.lists(host, address, port):
        return None
    if scheme == "http":
        return "Use https://, or add the host to CELERIAC_HTTP_ALLOW_HOSTS of gateway and workers."
    is_local_name = host.rstrip(".").endswith("localhost")
    if is_local_name or (address is not None and not allowed.allows(host, address, port)):
        return "Its address is internal. Use a public host, or add it to CELERIAC_HTTP_ALLOW_HOSTS."
    return None


def _literal(host: str) -> Address | None:
    """Return `host` as an address, in any notation that resolvers accept, such as 0x7f.1; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.ip_address(socket.inet_ntoa(socket.inet_aton(host)))
    except OSError:
        return None


def _key_length(secret: str) -> int:
    """Return the number of bytes of a secret; 0 if it is invalid."""
    if not secret.startswith(_SECRET_PREFIX):
        return 0
    try:
        return len(base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True))
    except binascii.Error:
        return 0
