"""Two pages: take an order, show one."""

import json

from celeriac.django import jobs
from django.db import transaction
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from shop.models import Order


@csrf_exempt  # only so that the example can be tried with curl
@require_POST
@transaction.atomic
def take_order(request):
    """Write the order; its invoice is submitted when the transaction commits."""
    order = Order.objects.create(prices_cents=json.loads(request.body)["prices_cents"])
    order.job = jobs.submit("shop.write_invoice", {"order": order.pk, "prices_cents": order.prices_cents})
    order.save()
    if sum(order.prices_cents) > 100_000:
        transaction.set_rollback(True)  # nothing is written, and nothing is submitted
        return JsonResponse({"detail": "We do not sell so much at once."}, status=409)
    return JsonResponse({"order": order.pk}, status=201)


def show_order(_request, number):
    """Return the order as JSON."""
    order = get_object_or_404(Order.objects.select_related("job"), pk=number)
    job = {"id": order.job.job_id, "state": order.job.state}
    return JsonResponse({"order": order.pk, "job": job, "invoice": order.invoice_uri, "told": order.told_count})
