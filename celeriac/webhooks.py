"""What a receiver of callbacks needs: the outcome of a job, if its signature is right (Standard Webhooks)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

WRONG_SIGNATURE = "The signature is wrong, or older than five minutes."


def outcome_of(body: bytes, headers: Mapping[str, str], secrets: Iterable[str]) -> dict[str, Any] | None:
    """Return what a callback says of a job, signed with one of the secrets; None if it is not.

    The same outcome comes again if the receiver's answer was lost: `webhook-id` is the same then.
    """
    for secret in secrets:
        try:
            return dict(Webhook(secret).verify(body, dict(headers))["data"])
        except (WebhookVerificationError, ValueError):  # ValueError: it does not even look like one
            continue
    return None
