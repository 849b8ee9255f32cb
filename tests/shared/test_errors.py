"""Errors are documents for programs and people, and carry no credentials."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import TaskFailure, TimeLimitReached, TransientFailure
from shared.texts import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach postgresql://me:hunter2@db:5432/x", "cannot reach postgresql://db:5432/x"),
        ("redis://:hunter2@127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("postgresql://me:hunt@er2@db/x", "postgresql://db/x"),
        ("amqps://user@broker//vhost and http://a:b@c", "amqps://broker//vhost and http://c"),
        ("https://x.com/f?token=hunter2&size=3", "https://x.com/f?token=***&size=3"),
        ("host=db user=me password=hunter2 dbname=x", "host=db user=me password=*** dbname=x"),
        ("PASSWORD='hunter2'", "PASSWORD=***"),
        ("https://s3/x?X-Amz-Signature=hunter2", "https://s3/x?X-Amz-Signature=***"),
        ("nothing to hide: me@example.com, a=b", "nothing to hide: me@example.com, a=b"),
    ],
)
def test_credentials_are_taken_out(text: str, shown: str) -> None:
    """User info of URLs and the values of secret-looking pairs."""
    assert redact(text) == shown


@given(st.text(alphabet=st.characters(whitelist_categories=("L", "N")), min_size=1, max_size=20))
def test_no_password_passes(password: str) -> None:
    """Whatever it is made of."""
    secret = f"s3cr3t{password}"
    assert secret not in redact(f"failed: postgresql://me:{secret}@db/x?password={secret} (secret={secret})")


def test_failure_is_a_document() -> None:
    """Code, message and remedy, and figures for programs."""
    failure = TaskFailure("bad_rows", "3 rows at http://u:p@h/", remedy="Fix them.", rows=3)
    assert failure.document() == {
        "code": "bad_rows",
        "message": "3 rows at http://h/",
        "remedy": "Fix them.",
        "retryable": False,
        "details": {"rows": 3},
    }
    assert str(failure) == "bad_rows: 3 rows at http://h/"


def test_a_transient_failure_says_so() -> None:
    """A transient failure is retried, and can name a floor under the wait."""
    failure = TransientFailure("busy", "Try again.", retry_after_s=7)
    assert (failure.document()["retryable"], failure.retry_after_s) == (True, 7)
    assert isinstance(failure, TaskFailure)


def test_time_limit_names_its_figure() -> None:
    """The limit is in the message and in the details."""
    document = TimeLimitReached(90).document()
    assert (document["code"], document["details"]) == ("time_limit_exceeded", {"limit_s": 90})
    assert "90 s" in document["message"]


@pytest.mark.parametrize("failure", [TaskFailure("c", "m", remedy="r", a=1), TransientFailure("c", "m", remedy="r")])
def test_failure_travels_between_processes(failure: TaskFailure) -> None:
    """A child of a pool hands it to its parent by pickle."""
    arrived = pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own bytes
    assert type(arrived) is type(failure)
    assert arrived.document() == failure.document()
