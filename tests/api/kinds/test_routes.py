"""The catalogue over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shared.contract.catalogue import catalogue
from shared.contract.params import schema_of

if TYPE_CHECKING:
    import httpx


def test_list_is_the_catalogue(api: httpx.Client) -> None:
    """Every kind is listed with its family, queue and limits, in alphabetical order."""
    kinds = api.get("/job-kinds").json()["kinds"]
    assert [kind["kind"] for kind in kinds] == sorted(catalogue())
    extract = next(kind for kind in kinds if kind["kind"] == "etl.extract_data")
    assert extract == {
        "kind": "etl.extract_data",
        "family": "etl",
        "version": 1,
        "summary": "Stage a source as one Parquet artifact.",
        "queue": "etl",
        "limits": {"soft_s": 3540, "hard_s": 3600},
        "retry": {"max_retries": 4, "backoff_s": 2, "backoff_max_s": 120},
        "concurrency": None,
        "rate": None,
        "deprecated": None,
        "replaces": [],
        "unique": None,
        "is_internal": False,
        "is_workflow": False,
    }


@pytest.mark.parametrize("kind", sorted(catalogue()))
def test_kind_describes_itself(kind: str, api: httpx.Client) -> None:
    """Its schemas are those of the contract, and its examples can be submitted as they are."""
    contract, shown = catalogue()[kind], api.get(f"/job-kinds/{kind}").json()
    assert shown["params_schema"] == json.loads(json.dumps(schema_of(contract)))
    assert shown["result_schema"]["type"] == "object"
    for example in shown["examples"]:
        response = api.post("/jobs/validate", json={"kind": kind, "params": example})
        assert response.status_code in {200, 422}, response.text
        assert response.json().get("code") in {None, "unknown_connection"}
