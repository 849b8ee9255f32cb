"""What becomes of parameters that another version of a contract has accepted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from shared.contract.definition import Contract, Limits
from shared.contract.versions import NotUpgraded, has_upgrade, upgraded
from shared.errors import DefinitionError


class Done(BaseModel):
    """Nothing to tell."""


class Third(
    Contract[Done],
    kind="acme.be_third",
    queue="etl",
    limits=Limits(soft_s=1, hard_s=2),
    version=3,
    examples=[{"mass_g": 1}],
):
    """A contract of version 3."""

    mass_g: int = Field(description="Mass in grams.")

    @classmethod
    def upgrade(cls, version: int, parameters: dict[str, Any]) -> Any:
        """Convert those of version 1; forget to return those of version 2."""
        return {"mass_g": parameters["kg"] * 1_000} if version == 1 else None


@pytest.mark.parametrize(
    ("params", "version", "expected"),
    [({"kg": 2}, 1, {"mass_g": 2_000}), ({"mass_g": 2}, 3, {"mass_g": 2}), ({"kg": 2}, None, {"kg": 2})],
    ids=["older", "the same", "of another Celery client"],
)
def test_parameters_get_the_form_of_this_version(
    params: dict[str, Any], version: int | None, expected: dict[str, Any]
) -> None:
    """What was given stays as it is for others."""
    before = dict(params)
    assert (upgraded(Third, params, version), params) == (expected, before)


@pytest.mark.parametrize(
    ("params", "version", "what", "remedy"),
    [
        ({}, 4, "under version 4 of its contract, and this is version 3.", "Deploy version 4"),
        ({}, 1, "from version 1 to 3 raises KeyError: 'kg'", "Fix upgrade()"),
        ({}, 2, "from version 2 to 3 returns NoneType, not a dict.", "Fix upgrade()"),
    ],
    ids=["newer", "raises", "returns nothing"],
)
def test_what_cannot_be_settled_says_what_to_do(params: dict[str, Any], version: int, what: str, remedy: str) -> None:
    """Whatever the author's code does."""
    with pytest.raises(NotUpgraded, match=r"acme\.be_third") as refused:
        upgraded(Third, params, version)
    assert what in str(refused.value)
    assert refused.value.remedy.startswith(remedy)


@pytest.mark.filterwarnings("ignore:Field name")
def test_a_parameter_may_have_the_name_of_the_method() -> None:
    """Its contract has no conversion then."""

    class Plain(
        Contract[Done],
        kind="acme.be_plain",
        queue="etl",
        limits=Limits(soft_s=1, hard_s=2),
        version=2,
        examples=[{"upgrade": True}],
    ):
        """A contract with a parameter that has the name of the method."""

        upgrade: bool = Field(description="Whether to.")  # type: ignore[assignment]  # what the test is about

    assert Plain(upgrade=True).model_dump() == {"upgrade": True}
    assert upgraded(Plain, {"upgrade": True}, 1) == {"upgrade": True}
    assert (has_upgrade(Plain), has_upgrade(Third)) == (False, True)


def test_a_conversion_needs_a_version_to_convert_to() -> None:
    """Else it would never be called."""
    with pytest.raises(DefinitionError, match=r"it has upgrade\(\), and is of version 1.* Set version=2\."):

        class First(
            Contract[Done],
            kind="acme.be_first",
            queue="etl",
            limits=Limits(soft_s=1, hard_s=2),
            examples=[{}],
        ):
            """A contract of version 1."""

            @classmethod
            def upgrade(cls, version: int, parameters: dict[str, Any]) -> dict[str, Any]:
                return {**parameters, "was": version}
