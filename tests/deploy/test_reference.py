"""The page of the public names is what the docstrings say."""

from __future__ import annotations

import re

import celeriac
from celeriac import testing
from deploy.reference import PAGE, page


def test_the_page_is_what_the_code_says() -> None:
    """If this fails: `make reference`."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_public_name_has_its_part() -> None:
    """With a text."""
    parts = dict(re.findall(r"^### (\w+)\n\n(.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert parts.keys() >= {*celeriac.__all__, *testing.__all__, "celeriac_service"}
