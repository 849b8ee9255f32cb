"""A shop that has its invoices written by jobs: `flask --app flask_shop run`."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from celeriac.client import Refused, Unreachable
from celeriac.flask import Celeriac
from flask import Flask, Response, abort, jsonify, request
from shop_jobs.contracts import WriteInvoice

celeriac = Celeriac()


def create_app() -> Flask:
    """Return the application; the settings `CELERIAC_...` come from the environment."""
    app = Flask(__name__)
    celeriac.init_app(app)
    with _database() as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, job TEXT, state TEXT, uri TEXT)"
        )
    app.post("/orders")(take_order)
    app.get("/orders/<int:number>")(show_order)
    return app


def take_order() -> tuple[Response, int]:
    """Write the order and submit its invoice; the key makes one job of it, however often this is done for an order."""
    with _database() as database:
        number = database.execute("INSERT INTO orders DEFAULT VALUES").lastrowid
    job = WriteInvoice(order=number, prices_cents=request.json["prices_cents"])
    try:
        accepted = celeriac.client.submit(
            job, idempotency_key=f"order-{number}", tags=[f"order:{number}"], callback_url=celeriac.callback_url
        )
    except (Refused, Unreachable) as why:
        abort(503, str(why))
    with _database() as database:
        database.execute("UPDATE orders SET job = ? WHERE number = ?", (accepted.id, number))
    return jsonify(order=number, job=accepted.id), 201


def show_order(number: int) -> Response:
    """Return the order as JSON."""
    with _database() as database:
        found = database.execute("SELECT job, state, uri FROM orders WHERE number = ?", (number,)).fetchone()
    if found is None:
        abort(404)
    job, state, uri = found
    return jsonify(order=number, job=job, state=state, invoice=uri)


@celeriac.ended
def keep_invoice(outcome: dict[str, Any]) -> None:
    """Note the outcome of the job, found by its tag: the callback may be faster than the answer to the submission."""
    number = next(tag.removeprefix("order:") for tag in outcome["tags"] if tag.startswith("order:"))
    uri = outcome["result"]["uri"] if outcome["result"] else None
    with _database() as database:
        database.execute("UPDATE orders SET state = ?, uri = ? WHERE number = ?", (outcome["state"], uri, number))


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(os.environ.get("SHOP_DATABASE", "shop.sqlite3"), timeout=20)) as database, database:
        yield database
