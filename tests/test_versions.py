"""The version is written once, in shared/__init__.py; what cannot be made from it says the same."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import yaml

from deploy.engine import build_options
from deploy.images import images
from shared import __version__

ROOT = Path(__file__).resolve().parents[1]


def test_the_wheel_has_the_version_of_the_code() -> None:
    """pyproject.toml has none of its own."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in tables["project"]
    assert tables["tool"]["setuptools"]["dynamic"] == {"version": {"attr": "shared.__version__"}}


def test_the_document_has_the_version_of_the_code() -> None:
    """`make openapi` was run after the version was changed."""
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    assert document["info"]["version"] == __version__


def test_the_changelog_leads_to_the_version_of_the_code() -> None:
    """What is not released stands first; the newest release, if there is one, is this version."""
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:2] in ([], [__version__])


def test_the_changelog_says_nothing_twice() -> None:
    """Git keeps the lines of both sides there, also where both sides have the same."""
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    items = Counter(line for line in lines if line.startswith("- "))
    assert [item for item, times in items.items() if times > 1] == []


def test_every_image_is_tagged_with_the_version_and_compose_takes_either_tag() -> None:
    """An operator who sets CELERIAC_TAG to the version gets the images that were built of it."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    for image in images():
        options = build_options(image.dockerfile, image.name, image.target, image.arguments, {})
        tags = [value for option, value in pairwise(options) if option == "--tag"]
        assert tags == [image.name, f"{image.name}:{__version__}"]
    ours = {service["image"] for service in services.values() if "build" in service}
    assert ours == {f"{image.name}:${{CELERIAC_TAG:-latest}}" for image in images()}
