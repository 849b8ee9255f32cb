"""The HTTP interface of the print shop, which is often busy."""

import json
import urllib.error
import urllib.request
from typing import Any

from celeriac import TaskFailure, TransientFailure

from acme_images.connections import PrintShop


def order(shop: PrintShop, key: str, wanted: dict[str, Any]) -> str:
    """Order prints and return the number of the order. The shop makes one order for each `key`.

    Raises `TransientFailure` if the shop is busy or not reachable, `TaskFailure` if it refuses the order.
    """
    headers = {
        "Authorization": f"Bearer {shop.token.get_secret_value()}",
        "Content-Type": "application/json",
        "Idempotency-Key": key,
    }
    request = urllib.request.Request(f"{shop.url}/orders", json.dumps(wanted).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=shop.answers_within_s) as answer:
            return str(json.load(answer)["order"])
    except urllib.error.HTTPError as refused:
        with refused:
            if refused.code == 429 or refused.code >= 500:
                raise TransientFailure(
                    "shop_busy", f"The shop answered {refused.code}.", retry_after_s=_seconds(refused)
                ) from None
            raise TaskFailure(
                "order_refused",
                f"The shop answered {refused.code}: {refused.read(500).decode(errors='replace')}",
                remedy="Correct the order, and submit it again.",
            ) from None
    except (OSError, TimeoutError) as failed:
        raise TransientFailure("shop_unreachable", str(failed)) from failed


def _seconds(refused: urllib.error.HTTPError) -> float | None:
    text = refused.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
