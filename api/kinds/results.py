"""The results of the kinds as schemas of the document, so that generated clients have a type for each."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from api.http.models import REFERENCE
from shared.contract.catalogue import Catalogue


def result_components(catalogue: Catalogue) -> dict[str, Any]:
    """Return the schemas of the results, and `JobResults`, whose property of the name of a kind is its result.

    `Job` itself is not one of many, discriminated by `kind`: generators merge its fields with those of each kind and
    fail, or take the first that fits, and a job of another Celery client has a kind that no document knows.
    """
    results = {kind: contract.spec.result for kind, contract in catalogue.items()}
    references, schemas = models_json_schema(
        [(result, "serialization") for result in dict.fromkeys(results.values())], ref_template=REFERENCE
    )
    of_kinds = {
        "description": "The result of each kind: `result` of a `Job` is the property with the name of its `kind`.",
        "properties": {kind: references[result, "serialization"] for kind, result in results.items()},
        "type": "object",
    }
    return {**schemas["$defs"], "JobResults": of_kinds}
