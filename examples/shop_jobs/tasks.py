"""What the workers run."""

from celeriac import Run, TaskFailure
from shop_jobs.contracts import Invoice, WriteInvoice


@WriteInvoice.task
def write_invoice(job: WriteInvoice, run: Run) -> Invoice:
    """Add up the prices and publish a text file."""
    if not job.prices_cents:
        raise TaskFailure("empty_order", f"Order {job.order} has no items.", remedy="Add one and rerun the job.")
    total = sum(job.prices_cents)
    path = run.scratch / "invoice.txt"
    path.write_text(f"Invoice of order {job.order}\nTotal: {total / 100:.2f}\n", encoding="utf-8")
    written = run.publish(path, name="invoice.txt", role="file", media_type="text/plain")
    return Invoice(total_cents=total, uri=written.uri)
