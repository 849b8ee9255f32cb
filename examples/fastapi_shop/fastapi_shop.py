"""A shop that has its invoices written by jobs: `uvicorn fastapi_shop:app`."""

from typing import Annotated

from celeriac.client import NotEnded, Refused, Unreachable
from celeriac.fastapi import Celeriac, Outcome, lifespan
from fastapi import FastAPI, HTTPException, Query, Request
from pydantic import BaseModel
from shop_jobs.contracts import Invoice, WriteInvoice

app = FastAPI(title="A shop", lifespan=lifespan)
ended: dict[str, str] = {}  # states by the id of the job; a real shop has a database


class Accepted(BaseModel):
    """An order that was taken."""

    job: str


@app.post("/orders", status_code=201)
async def take_order(order: WriteInvoice, celeriac: Celeriac, request: Request) -> Accepted:
    """Submit the invoice. The contract is the body, so the document of this application describes it, too."""
    callback_url = str(request.url_for("keep_outcome"))
    try:
        job = await celeriac.submit(order, idempotency_key=f"order-{order.order}", callback_url=callback_url)
    except (Refused, Unreachable) as why:
        raise HTTPException(503, str(why)) from why
    return Accepted(job=job.id)


@app.get("/invoices/{job_id}")
async def show_invoice(job_id: str, celeriac: Celeriac, wait_s: Annotated[float, Query(le=30)] = 0) -> Invoice:
    """Return the invoice of a job, typed by its contract."""
    try:
        return (await celeriac.wait(job_id, WriteInvoice, timeout_s=wait_s)).result
    except NotEnded as live:
        raise HTTPException(409, str(live)) from live


@app.post("/celeriac/callbacks", status_code=204)
async def keep_outcome(outcome: Outcome) -> None:
    """Note how a job has ended; the signature is verified."""
    ended[outcome["id"]] = outcome["state"]


@app.get("/states/{job_id}")
async def show_state(job_id: str) -> str | None:
    """Return how a job has ended, as far as a callback said it."""
    return ended.get(job_id)
