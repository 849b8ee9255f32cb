"""An order, and the job that writes its invoice."""

from django.db import models


class Order(models.Model):
    """Somebody's order."""

    prices_cents = models.JSONField()
    job = models.ForeignKey("celeriac.Job", null=True, on_delete=models.SET_NULL)
    invoice_uri = models.TextField(blank=True)
    told_count = models.IntegerField(default=0)  # how often the end of its job was signalled

    def __str__(self) -> str:
        return f"order {self.pk}"
