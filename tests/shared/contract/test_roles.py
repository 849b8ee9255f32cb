"""Roles of a team's own: workflows are checked for them, and what a body publishes has the role of its field."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from celeriac import (
    Artifact,
    ArtifactUri,
    Contract,
    Dataset,
    FedFromUpstream,
    Limits,
    Node,
    Run,
    TaskFailure,
    WorkflowContract,
    chain,
    fed_step,
    group,
    role,
    step,
)
from celeriac.testing import run_task
from shared.contract.artifacts import OwnRole
from shared.contract.definition import AnyContract
from shared.errors import DefinitionError
from shared.workflows.feeding import gives

Picture, Sound = role("acme.picture"), role("acme.sound")
LIMITS = Limits(soft_s=50, hard_s=60)
FILE = "artifact://0192f0c1-2a4b-7c3d-8e5f-0123456789ab/1/a"


class Drawn(BaseModel):
    """What was drawn."""

    pictures: list[Annotated[Artifact, Picture]] = Field(description="The pictures.")
    cover: Annotated[Artifact | None, Picture] = Field(default=None, description="Another.")
    sizes: Annotated[Dataset, Sound] | None = Field(default=None, description="A table.")
    note: Artifact | None = Field(default=None, description="A file.")


class Nothing(BaseModel):
    """Nothing to show."""


class Draw(Contract[Drawn], kind="acme.draw_with_roles", queue="etl", limits=LIMITS, examples=[{}]):
    """Draw."""

    wrongly: bool = Field(default=False, description="Whether with the wrong role.")
    misspelt: bool = Field(default=False, description="Whether with a role that nobody made.")


class Show(Contract[Nothing], kind="acme.show_with_roles", queue="etl", limits=LIMITS, examples=[{"pictures": [FILE]}]):
    """Show pictures."""

    pictures: Annotated[list[ArtifactUri], FedFromUpstream(Picture)] = Field(min_length=1, description="Pictures.")


class Play(Contract[Nothing], kind="acme.play_with_roles", queue="etl", limits=LIMITS, examples=[{"files": [FILE]}]):
    """Play files."""

    files: Annotated[list[ArtifactUri], FedFromUpstream("model")] = Field(min_length=1, description="Files.")


@Draw.task
def draw(job: Draw, run: Run) -> Drawn:
    """Draw one picture."""
    path = run.scratch / "a.png"
    path.write_text("a picture")
    wanted: Any = "acme.pictrue" if job.misspelt else Sound if job.wrongly else Picture
    return Drawn(pictures=[run.publish(path, role=wanted)])


def test_marks_say_what_a_result_gives() -> None:
    """Inside a list, around a union, on a dataset; without a mark, an artifact is a file."""
    assert gives(Draw) == {"acme.picture": True, "acme.sound": False, "file": False}


def test_a_role_is_a_value() -> None:
    """Made twice, it is the same; a name of another form is refused."""
    assert role("acme.picture") == Picture
    with pytest.raises(DefinitionError, match=r"role\('picture'\): it must be of the form family.noun"):
        role("picture")


def workflow_of(last: AnyContract) -> AnyContract:
    """Define a workflow that draws, then runs `last` on what the steps before it give."""

    class DrawAndUse(WorkflowContract[Nothing], kind="acme.draw_and_use", queue="etl", limits=LIMITS, examples=[{}]):
        """Draw, then use."""

        def plan(self) -> Node:
            return chain(group(step("one", Draw()), step("two", Draw())), fed_step("use", last, Nothing()))

    return DrawAndUse


def test_a_workflow_is_fed_by_roles() -> None:
    """One that wants pictures and gets some is defined; one that wants another role is refused at once."""
    assert workflow_of(Show).spec.kind == "acme.draw_and_use"
    with pytest.raises(DefinitionError) as refused:
        workflow_of(Play)
    assert "'use' (acme.play_with_roles) takes a model for 'files'; before it, 'one' (acme.draw_with_roles) gives " in (
        str(refused.value)
    )
    assert "acme.picture, acme.sound, file" in str(refused.value)


def test_a_body_publishes_with_the_role_that_its_result_says() -> None:
    """So that what was checked at the definition is so when it runs."""
    ran = run_task(draw, Draw())
    assert [file.role for file in ran.artifacts] == ["acme.picture"]
    with pytest.raises(ValueError, match=r"the file a.png has the role 'acme.sound', and this field takes 'acme.pict"):
        run_task(draw, Draw(wrongly=True))
    with pytest.raises(TaskFailure, match=r"unknown_role: the role 'acme.pictrue' does not exist.* role\('acme.pict"):
        run_task(draw, Draw(misspelt=True))


def test_a_role_knows_its_name() -> None:
    """In texts it stands without more."""
    assert (str(Picture), Picture) == ("acme.picture", OwnRole("acme.picture"))
