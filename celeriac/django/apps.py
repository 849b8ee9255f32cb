"""The application, as Django knows it."""

from __future__ import annotations

from django.apps import AppConfig


class CeleriacConfig(AppConfig):
    """Its checks are registered when Django is ready."""

    name = "celeriac.django"
    label = "celeriac"
    verbose_name = "Celeriac"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from celeriac.django import checks  # noqa: PLC0415 - it needs the URLs and models of a project that is ready

        checks.register()
