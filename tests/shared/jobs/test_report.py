"""What a report's contract refuses before any worker sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shared.jobs.report import MAX_BLOCKS, GenerateDailyReport, GenerateReport

URI = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/data.parquet"
COUNT = {"n": {"function": "count"}}
BAR = {"kind": "bar", "title": "B", "x": "a", "y": COUNT}
TEXT = {"kind": "text", "text": "x"}


def report(*blocks: dict[str, Any], **changes: Any) -> GenerateReport:
    params = {"dataset": URI, "title": "T", "sections": [{"blocks": list(blocks)}], **changes}
    return GenerateReport.model_validate_json(json.dumps(params))


@pytest.mark.parametrize(
    ("blocks", "changes", "message"),
    [
        ([{**BAR, "dataset": "stock"}], {}, "known are ['dataset']"),
        ([TEXT], {"datasets": {"dataset": URI}}, "choose another name"),
        ([TEXT], {"datasets": {'a"b': URI}}, "String should match pattern"),
        ([TEXT], {"formats": ["docx"]}, "Input should be 'html'"),
        ([TEXT], {"lang": 'en"><script>'}, "String should match pattern"),
        ([{**BAR, "y": {**COUNT, "m": {"function": "count"}}, "split_by": "a"}], {}, "one measure"),
        ([{"kind": "table", "title": "T", "group_by": ["a"]}], {}, "at least one"),
        ([{"kind": "table", "title": "T", "group_by": ["n"], "measures": COUNT}], {}, "another name"),
        ([{"kind": "pie", "title": "P"}], {}, "does not match any of the expected tags"),
        ([], {"sections": [{"blocks": [TEXT] * 50}] * 3}, f"the maximum is {MAX_BLOCKS}"),
        ([{**BAR, "title": "x" * 201}], {}, "at most 200 characters"),
    ],
)
def test_specs_that_cannot_be_rendered(blocks: list[dict[str, Any]], changes: dict[str, Any], message: str) -> None:
    """The message says what is wrong and where."""
    with pytest.raises(ValidationError) as refused:
        report(*blocks, **changes)
    assert message in str(refused.value)


def test_a_spec_of_several_datasets() -> None:
    """Blocks ask for further datasets by name."""
    assert report({**BAR, "dataset": "stock"}, datasets={"stock": URI}).datasets == {"stock": URI}


@pytest.mark.parametrize("zone", ["Mars/Base", "../../etc/passwd", "/etc/localtime", "Europe", ""])
def test_unknown_time_zones(zone: str) -> None:
    """Only names of the IANA database are zones; a path is none."""
    with pytest.raises(ValidationError, match="time zone"):
        GenerateDailyReport.model_validate_json(json.dumps({"time_zone": zone}))


@pytest.mark.parametrize("day", ["1999-12-31", "9999-12-31", "yesterday"])
def test_days_that_no_report_has(day: str) -> None:
    """Days have a day before and after them, and ids."""
    with pytest.raises(ValidationError):
        GenerateDailyReport.model_validate_json(json.dumps({"day": day}))
