"""System checks: what `manage.py check` says of the settings, and with `--deploy` of the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from django.core import checks
from django.urls import Resolver404, resolve

from celeriac.client import ClientFailure
from celeriac.client.gateway import refuse_wrong_url
from celeriac.django.callbacks import receive
from celeriac.django.settings import Settings, settings_of_project
from shared.connections.callbacks import is_secret

TAG = "celeriac"
_ANY_KEY = "00000000-0000-4000-8000-000000000000/"


def register() -> None:
    """Add the checks to those of the project."""
    checks.register(check_settings, TAG)
    checks.register(check_gateway, TAG, deploy=True)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Say what is wrong with the settings."""
    return list(_wrong(settings_of_project()))


def check_gateway(**_: Any) -> list[checks.CheckMessage]:
    """Say whether the gateway can be reached and is ready: only with `--deploy`, as it is another machine's state."""
    if _wrong_url(settings_of_project().url):
        return []
    try:
        with settings_of_project().client() as client:
            client.call("GET", "/readyz")
    except ClientFailure as failure:
        hint = "Start the gateway, or correct CELERIAC_URL."
        return [checks.Error(f"The gateway is not ready: {failure}", hint=hint, id="celeriac.E005")]
    return []


def _wrong(settings: Settings) -> Iterator[checks.CheckMessage]:
    if wrong := _wrong_url(settings.url):
        hint = 'Set it to the URL of the gateway, such as "http://127.0.0.1:8000".'
        yield checks.Error(f"CELERIAC_URL {wrong}.", hint=hint, id="celeriac.E001")
    if not settings.callback_url:
        hint = "Set CELERIAC_CALLBACK_URL and CELERIAC_WEBHOOK_SECRET, or run `manage.py celeriac refresh` regularly."
        yield checks.Warning("Without CELERIAC_CALLBACK_URL no outcome is received.", hint=hint, id="celeriac.W001")
        return
    if wrong := _wrong_url(settings.callback_url):
        hint = "Set it to where the workers reach this site."
        yield checks.Error(f"CELERIAC_CALLBACK_URL {wrong}.", hint=hint, id="celeriac.E002")
    elif not _is_ours(urlsplit(settings.callback_url).path):
        hint = (
            'Include "celeriac.django.urls" in the URLs, and let CELERIAC_CALLBACK_URL end in "/callbacks/" below it.'
        )
        yield checks.Error("CELERIAC_CALLBACK_URL does not lead to the callbacks.", hint=hint, id="celeriac.E003")
    hint = "Set it to that of the gateway: `echo whsec_$(openssl rand -base64 32)` makes one."
    if not settings.webhook_secrets:  # a warning: an image is built without its secrets
        yield checks.Warning(
            "CELERIAC_WEBHOOK_SECRET is empty, so every outcome is refused.", hint=hint, id="celeriac.W002"
        )
    if not all(map(is_secret, settings.webhook_secrets)):
        yield checks.Error("CELERIAC_WEBHOOK_SECRET is not a secret.", hint=hint, id="celeriac.E004")


def _wrong_url(url: Any) -> str:
    try:
        refuse_wrong_url(url if isinstance(url, str) else "")
    except ValueError:
        return f"is {url!r}, which is not an http or https URL"
    return ""


def _is_ours(path: str) -> bool:
    try:
        return resolve(f"{path.rstrip('/')}/{_ANY_KEY}").func is receive
    except Resolver404:
        return False
