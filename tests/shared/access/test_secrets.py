"""The text of a key: its form, and its checksum."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.access.secrets import id_of, new_id, new_secret

KEY = "cel_4Fh2kQ9x_0123456789ABCDEFGHIJKLMN"


def test_a_key_has_the_form_that_scanners_know() -> None:
    """`cel_`, 8 characters of id, 24 at random, 6 of checksum."""
    key_id = new_id()
    key = new_secret(key_id)
    assert re.fullmatch(r"cel_[0-9A-Za-z]{8}_[0-9A-Za-z]{30}", key)
    assert id_of(key) == key_id
    assert new_secret(key_id) != key


@given(place=st.integers(0, 42), sign=st.sampled_from("0Zz_-é"))
def test_a_mistyped_key_is_refused(place: int, sign: str) -> None:
    """One wrong character anywhere, also in the prefix and in the id."""
    key = new_secret("4Fh2kQ9x")
    mistyped = key[:place] + sign + key[place + 1 :]
    assert (id_of(mistyped) is None) == (mistyped != key)


@pytest.mark.parametrize("text", ["", "cel_", "cel__", KEY, KEY + "000000\n", f" {KEY}000000"])
def test_other_texts_are_refused(text: str) -> None:
    assert id_of(text) is None
