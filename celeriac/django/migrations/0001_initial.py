"""The table of jobs."""

import uuid

import django.core.serializers.json
import django.db.models.deletion
from django.db import migrations, models

import celeriac.django.models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Job",
            fields=[
                ("key", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                (
                    "job_id",
                    models.CharField(
                        db_index=True,
                        editable=False,
                        help_text="Its id in the gateway; null while unsent.",
                        max_length=255,
                        null=True,
                    ),
                ),
                ("kind", models.CharField(db_index=True, max_length=255)),
                ("params", models.JSONField(default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder)),
                (
                    "options",
                    models.JSONField(blank=True, default=dict, encoder=django.core.serializers.json.DjangoJSONEncoder),
                ),
                (
                    "state",
                    models.CharField(
                        choices=celeriac.django.models.state_choices, db_index=True, default="unsent", max_length=16
                    ),
                ),
                ("result", models.JSONField(blank=True, null=True)),
                (
                    "is_result_omitted",
                    models.BooleanField(
                        default=False, help_text="The callback had no room for the result; a refresh fetches it."
                    ),
                ),
                ("error", models.JSONField(blank=True, null=True)),
                ("created_at", models.DateTimeField(auto_now_add=True, db_index=True)),
                ("sent_at", models.DateTimeField(help_text="When it was first sent to the gateway.", null=True)),
                ("looked_at", models.DateTimeField(help_text="When its state was last heard.", null=True)),
                ("started_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "retried_from",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="reruns",
                        to="celeriac.job",
                    ),
                ),
            ],
            options={
                "ordering": ["-created_at"],
                "permissions": [("cancel_job", "Can cancel jobs"), ("rerun_job", "Can rerun jobs")],
                "default_permissions": ("view", "delete"),
            },
        ),
    ]
