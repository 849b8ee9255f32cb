"""The table of orders."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("celeriac", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("prices_cents", models.JSONField()),
                ("invoice_uri", models.TextField(blank=True)),
                ("told_count", models.IntegerField(default=0)),
                ("job", models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, to="celeriac.job")),
            ],
        ),
    ]
