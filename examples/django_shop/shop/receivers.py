"""What the shop does when a job has ended."""

from celeriac.django.signals import job_failed, job_succeeded
from django.db.models import F
from django.dispatch import receiver

from shop.models import Order


@receiver([job_succeeded, job_failed])
def keep_invoice(job, **_):
    """Note where the invoice is; in the transaction that notes the state of the job."""
    uri = job.result["uri"] if job.result else ""
    Order.objects.filter(job=job).update(invoice_uri=uri, told_count=F("told_count") + 1)
