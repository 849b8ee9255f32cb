"""Where a file goes among a job's parameters."""

from __future__ import annotations

from typing import Any

import pytest

from cli.commands.arguments import Mistyped
from cli.commands.places import put_file
from shared.contract.catalogue import Catalogue
from shared.contract.params import schema_of

URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/0/sales.csv"
OTHER = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ac/0/other.csv"
SOURCE = {"kind": "artifact", "uri": URI}
KINDS = Catalogue.load(["shared.jobs", "tests.acme.contracts"])


def put(kind: str, params: dict[str, Any], *places: str) -> dict[str, Any]:
    """Return the parameters with the file at these places."""
    for place in places:
        put_file(params, place, URI, schema_of(KINDS[kind]))
    return params


@pytest.mark.parametrize(
    ("kind", "place", "before", "after"),
    [
        ("acme.copy_note", "note", {"notebook": "n"}, {"notebook": "n", "note": URI}),
        ("etl.extract_data", "source", {}, {"source": SOURCE}),
        ("etl.extract_data", "source.uri", {"source": {"kind": "artifact"}}, {"source": SOURCE}),
        (
            "etl.extract_data",
            "source",
            {"source": {"layout": {"format": "csv"}}},
            {"source": {**SOURCE, "layout": {"format": "csv"}}},
        ),
        ("etl.combine_datasets", "datasets", {}, {"datasets": [URI]}),
        ("etl.combine_datasets", "datasets", {"datasets": [OTHER]}, {"datasets": [OTHER, URI]}),
        ("etl.run_partitioned", "sources", {}, {"sources": [SOURCE]}),
        ("etl.run_pipeline", "transform.inputs.regions", {}, {"transform": {"inputs": {"regions": URI}}}),
        ("report.generate_report", "datasets.sales", {}, {"datasets": {"sales": URI}}),
        ("ml.run_pipeline", "predict.dataset", {"predict": {}}, {"predict": {"dataset": URI}}),
    ],
)
def test_it_becomes_what_the_parameter_takes(
    kind: str, place: str, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """The uri, an object with it, or an item of a list; what is set already stays."""
    assert put(kind, before, place) == after


def test_several_files_of_a_list() -> None:
    """Each is one more item."""
    assert put("etl.run_partitioned", {}, "sources", "sources") == {"sources": [SOURCE, SOURCE]}


@pytest.mark.parametrize(
    ("kind", "place", "params", "said"),
    [
        ("etl.extract_data", "xsource", {}, "no parameter 'xsource'. Did you mean 'source'? A file can be: source"),
        ("etl.extract_data", "source.url.x", {}, "no parameter 'x' in source.url"),
        ("etl.extract_data", "source.url", {}, "does not take a file. A file can be: source."),
        ("etl.load_data", "destination", {}, "does not take a file. A file can be: dataset."),
        ("acme.take_note", "notebook", {}, "No parameter of this kind takes a file."),
        ("acme.copy_note", "note", {"note": OTHER}, "gives it, too"),
        ("etl.extract_data", "source", {"source": {"kind": "http"}}, "gives it, too"),
        ("etl.extract_data", "source", {"source": {"uri": OTHER}}, "gives it, too"),
        ("etl.extract_data", "source", {"source": "x"}, "gives it, too"),
        ("etl.extract_data", "source.uri", {"source": "x"}, "'source' is a plain value"),
        ("etl.combine_datasets", "datasets", {"datasets": "x"}, "a list belongs there"),
        ("etl.combine_datasets", "datasets.7", {"datasets": []}, "no parameter '7' in datasets"),
        ("workflow.chain", "steps.0.params.source", {"steps": [{"params": {}}]}, "--file steps.0.params.source: "),
    ],
)
def test_a_place_for_no_file_is_refused(kind: str, place: str, params: dict[str, Any], said: str) -> None:
    """With what to do; a value that is given twice, too."""
    with pytest.raises(Mistyped) as refused:
        put(kind, params, place)
    assert said in str(refused.value)
