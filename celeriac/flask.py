"""Jobs in a Flask application.

    celeriac = Celeriac()

    def create_app():
        app = Flask(__name__)
        celeriac.init_app(app)
        return app

    celeriac.client.submit("report.generate_report", {...})

`flask celeriac submit` does the same from a shell. `@celeriac.ended` declares what is called with the outcome of a job,
which the service POSTs to `celeriac.callback_url`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import click
from flask import Blueprint, Flask, abort, current_app, request, url_for
from flask.cli import AppGroup

from celeriac.client import DEFAULT_URL, Client, ClientFailure, Retries
from celeriac.webhooks import WRONG_SIGNATURE, outcome_of

Receiver = TypeVar("Receiver", bound=Callable[[dict[str, Any]], Any])

_NAME = "celeriac"
_DEFAULTS = {
    "CELERIAC_URL": DEFAULT_URL,  # of the gateway
    "CELERIAC_API_KEY": "",  # with which the gateway knows this application
    "CELERIAC_RETRY_S": 2,  # how long a call is repeated while the gateway does not answer: a request waits for it
    "CELERIAC_WEBHOOK_SECRET": "",  # that of the gateway; while it is rotated, both
    "CELERIAC_CALLBACK_PATH": "/celeriac/callbacks",  # where outcomes are received
}


class Celeriac:
    """The extension; one object serves any number of applications."""

    def __init__(self, app: Flask | None = None) -> None:
        self._receivers: list[Callable[[dict[str, Any]], Any]] = []
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Read the configuration of `app`, or the environment; add the route of callbacks and the commands."""
        for name, default in _DEFAULTS.items():
            app.config.setdefault(name, os.environ.get(name, default))
        retry_s = float(app.config["CELERIAC_RETRY_S"])
        app.extensions[_NAME] = Client(
            app.config["CELERIAC_URL"],
            api_key=app.config["CELERIAC_API_KEY"] or None,
            retries=Retries(for_s=retry_s, connect_for_s=retry_s),
        )
        routes = Blueprint(_NAME, __name__)
        routes.post(app.config["CELERIAC_CALLBACK_PATH"], endpoint="receive")(self._receive)
        app.register_blueprint(routes)
        app.cli.add_command(_commands)

    @property
    def client(self) -> Client:
        """The client of the current application."""
        return _client()

    @property
    def callback_url(self) -> str:
        """Where the current application receives outcomes: `submit(..., callback_url=celeriac.callback_url)`.

        Outside of a request Flask needs `SERVER_NAME` for it.
        """
        return url_for(f"{_NAME}.receive", _external=True)

    def ended(self, receiver: Receiver) -> Receiver:
        """Declare a function that is called with the outcome of each job: `id`, `kind`, `state`, `result`, `error`, ...

        If it raises, the outcome comes again. It may come again anyhow, so it is to do its work once for an id.
        """
        self._receivers.append(receiver)
        return receiver

    def _receive(self) -> tuple[str, int]:
        secrets = current_app.config["CELERIAC_WEBHOOK_SECRET"].split()
        outcome = outcome_of(request.get_data(), dict(request.headers), secrets)
        if outcome is None:
            abort(HTTPStatus.UNAUTHORIZED, WRONG_SIGNATURE)
        for receiver in self._receivers:
            receiver(outcome)
        return "", HTTPStatus.NO_CONTENT


def _client() -> Client:
    try:
        client: Client = current_app.extensions[_NAME]
    except KeyError:
        raise RuntimeError("This application has no Celeriac: call Celeriac().init_app(app).") from None
    return client


_commands = AppGroup(_NAME, help="Submit and look at jobs of Celeriac.")


def _answer(call: Callable[[Client], Any]) -> Any:
    """Return what the client answers; its failure ends the command with a sentence."""
    try:
        return call(_client())
    except ClientFailure as failure:
        raise click.ClickException(str(failure)) from failure


def _object(_: click.Context, __: click.Parameter, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as wrong:
        raise click.BadParameter(f"it is not JSON: {wrong}") from None
    if not isinstance(value, dict):
        raise click.BadParameter("it is not a JSON object.")
    return value


@_commands.command()
@click.argument("kind")
@click.option("--params", default="{}", callback=_object, help="Its parameters, a JSON object.")
@click.option("--options", default="{}", callback=_object, help='Its options, such as {"priority": 9}.')
def submit(kind: str, params: dict[str, Any], options: dict[str, Any]) -> None:
    """Submit a job and print its id."""
    click.echo(_answer(lambda client: client.submit(kind, params, **options)).id)


@_commands.command()
@click.argument("job_id")
@click.option("--wait-s", type=float, help="Wait this long for its end, at most 60.")
def status(job_id: str, wait_s: float | None) -> None:
    """Print the state of a job, and its result or error."""
    job = _answer(lambda client: client.get(job_id, wait_s=wait_s)).document
    click.echo(f"{job['id']}  {job['kind']}  {job['state']}")
    for name in ("result", "error"):
        if job[name]:
            click.echo(f"{name}: {json.dumps(job[name])}")


@_commands.command()
@click.argument("job_id")
def cancel(job_id: str) -> None:
    """Cancel a job."""
    click.echo(_answer(lambda client: client.cancel(job_id)).state)


@_commands.command()
@click.argument("job_id")
def rerun(job_id: str) -> None:
    """Run a job that did not succeed again, and print the id of the new one."""
    click.echo(_answer(lambda client: client.rerun(job_id)).id)
