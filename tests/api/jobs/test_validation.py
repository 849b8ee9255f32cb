"""Checks of submissions that accept nothing, on a real gateway process and a real Valkey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from shared.contract.catalogue import catalogue
from shared.ledger.keys import key

if TYPE_CHECKING:
    import httpx

    from tests.support.servers.services import Server


@pytest.mark.parametrize("kind", sorted(catalogue()))
def test_every_example_of_the_catalogue_would_be_accepted(kind: str, api: httpx.Client, valkey: Server) -> None:
    """A check of an example of each kind says what it would become, and publishes nothing."""
    with redis.Redis(port=valkey.port) as client:
        before = client.zcard(key("jobs"))
        for example in catalogue()[kind].spec.examples:
            response = api.post("/jobs/validate", json={"kind": kind, "params": dict(example)})
            assert response.status_code == 200, response.text
            assert (kind, catalogue()[kind].spec.queue) == (response.json()["kind"], response.json()["queue"])
        assert client.zcard(key("jobs")) == before


def test_validate_only_names_the_steps(api: httpx.Client, pipeline: dict[str, Any]) -> None:
    """Of a workflow, the plan is part of what would be accepted; a batch answers for each job."""
    response = api.post("/jobs/validate", json=pipeline)
    assert api.post("/jobs", params={"validate_only": True}, json=pipeline).json() == response.json()
    assert response.json()["steps"] == ["extract", "transform", "load"]
    batch = api.post("/jobs/batch/validate", json={"jobs": [pipeline] * 2})
    assert (batch.status_code, len(batch.json()["jobs"])) == (200, 2)
