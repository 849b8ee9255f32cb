"""What breaks accepted jobs and clients, and what does not."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from cli.authors.differences import differences


class Inner(BaseModel):
    """A model that contains itself."""

    model_config = ConfigDict(extra="forbid")
    deep: int = 0
    again: list[Inner] = []


class WiderInner(BaseModel):
    """One that takes more."""

    model_config = ConfigDict(extra="forbid")
    deep: float = 0
    again: list[WiderInner] = []
    more: str | None = None


class NarrowerInner(BaseModel):
    """One that takes less."""

    model_config = ConfigDict(extra="forbid")
    deep: int = Field(0, le=5)
    again: list[NarrowerInner] = []


def described(params: dict[str, Any], result: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return the description of a kind with these fields."""
    config = ConfigDict(extra="forbid")
    accepted: Any = create_model("Params", __config__=config, **params)
    returned: Any = create_model("Result", **(result or {}))
    return {
        "acme.shout_text": {
            "idempotent_by": [],
            "params_schema": accepted.model_json_schema(),
            "result_schema": returned.model_json_schema(mode="serialization"),
        }
    }


TEXT = {"text": (str, ...)}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TEXT, TEXT),
        (TEXT, {**TEXT, "loud": (bool, False)}),
        (TEXT, {"text": (str, "hello")}),
        (TEXT, {"text": (str | None, ...)}),
        (TEXT, {"text": (str | int, Field(description="Changed."))}),
        ({"n": (Annotated[int, Field(le=5)], 1)}, {"n": (Annotated[int, Field(le=6)], 1)}),
        ({"n": (Literal["a", "b"], "a")}, {"n": (Literal["a", "b", "c"], "a")}),
        ({"n": (Literal["a"], "a")}, {"n": (str, "a")}),
        ({"n": (int, ...)}, {"n": (float, ...)}),
        ({"n": (Inner, ...)}, {"n": (WiderInner, ...)}),
        ({"n": (dict[str, int], ...)}, {"n": (dict[str, float], ...)}),
    ],
)
def test_jobs_that_were_accepted_still_run(old: dict[str, Any], new: dict[str, Any]) -> None:
    """An optional field more, a wider range: nothing is said."""
    assert list(differences(described(old), described(new))) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (TEXT, {}, "text is gone"),
        (TEXT, {**TEXT, "loud": (bool, ...)}, "loud is required"),
        ({"text": (str, "a")}, TEXT, "text is required"),
        ({"text": (str, "a")}, {"text": (str, "b")}, "text has the default 'b', which was 'a'"),
        (TEXT, {"text": (int, ...)}, 'text was {"type": "string"} and is {"type": "integer"}'),
        (TEXT, {"text": (Annotated[str, Field(max_length=5)], ...)}, 'is {"maxLength": 5, "type": "string"}'),
        ({"n": (str | None, None)}, {"n": (str, "a")}, 'n was {"type": "null"} and is {"type": "string"}'),
        ({"n": (Literal["a", "b"], ...)}, {"n": (Literal["a"], ...)}, 'n was {"enum": ["a", "b"]'),
        ({"n": (str, ...)}, {"n": (Literal["a"], ...)}, 'n was {"type": "string"} and is {"const": "a"'),
        ({"n": (float, ...)}, {"n": (int, ...)}, 'n was {"type": "number"} and is {"type": "integer"}'),
        ({"n": (WiderInner, ...)}, {"n": (Inner, ...)}, "n.more is gone"),
        ({"n": (Inner, ...)}, {"n": (NarrowerInner, ...)}, 'n.deep was {"type": "integer"} and is {"maximum": 5'),
        ({"n": (list[int], ...)}, {"n": (list[str], ...)}, 'n[] was {"type": "integer"}'),
        ({"n": (dict[str, float], ...)}, {"n": (dict[str, int], ...)}, 'n.* was {"type": "number"}'),
    ],
)
def test_what_accepted_jobs_would_fail_with_is_named(old: dict[str, Any], new: dict[str, Any], said: str) -> None:
    """With the path of the parameter, and what to do."""
    (found,) = [text for text in differences(described(old), described(new)) if said in text]
    assert found.startswith("acme.shout_text: the parameter ")
    said_last = "add an optional field, or a new kind; or set version=2 and write upgrade()."
    assert found.endswith(f"Keep what was accepted: {said_last}")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (TEXT, {**TEXT, "more": (int, ...)}, []),
        ({"n": (float, ...)}, {"n": (int, ...)}, []),
        (TEXT, {}, ["of the result, text may be missing"]),
        ({"n": (int, ...)}, {"n": (str, ...)}, ['of the result, n was {"type": "integer"} and is {"type": "string"}']),
        ({"n": (int, ...)}, {"n": (int | None, ...)}, ['n was {"type": "integer"} and is {"type": "null"}']),
    ],
)
def test_clients_can_still_read_the_result(old: dict[str, Any], new: dict[str, Any], said: list[str]) -> None:
    """More fields are welcome; fewer, or other values, are not."""
    found = list(differences(described({}, old), described({}, new)))
    assert len(found) == len(said)
    assert all(part in text for part, text in zip(said, found, strict=True)), found


def test_a_kind_is_not_removed_but_replaced() -> None:
    """By one that names it, and takes what it took."""
    old, key = described(TEXT), {"idempotent_by": ["text"]}
    (gone,) = differences(old, {})
    assert gone.startswith("acme.shout_text is gone. Keep it, or name it in replaces")
    after = described({**TEXT, "loud": (bool, False)})["acme.shout_text"] | {"replaces": ["acme.shout_text"]}
    assert list(differences(old, {"acme.cry_text": after})) == []
    (other,) = differences(old, {"acme.shout_text": old["acme.shout_text"] | key})
    assert other.startswith("acme.shout_text has another idempotent_by")


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ({}, {"version": 2, "upgrades": True}, []),
        ({"version": 2}, {"version": 3, "upgrades": True}, []),
        ({}, {"version": 2, "upgrades": False}, ["set version=2 and write upgrade()"]),
        ({"version": 2}, {"version": 2, "upgrades": True}, ["set version=3 and write upgrade()"]),
        ({"version": 3}, {"version": 2, "upgrades": True}, ["Never lower it", "set version=4 and write upgrade()"]),
    ],
)
def test_another_form_of_the_parameters_needs_a_higher_version(
    was: dict[str, Any], now: dict[str, Any], said: list[str]
) -> None:
    """And what becomes of the old one."""
    old, new = described({"kg": (int, 1)}), described({"mass_g": (int, 1)})
    old["acme.shout_text"] |= was
    new["acme.shout_text"] |= now
    found = list(differences(old, new))
    assert len(found) == len(said)
    assert all(expected in each for each, expected in zip(found, said, strict=True))
