"""A Django project with `django-celery-results`: `migrate` its database, or `show` what its admin shows."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.core.management import call_command

_APPS = ("admin", "auth", "contenttypes", "sessions", "messages")


def database_at(url: str) -> dict[str, Any]:
    """Return the database at this URL as Django's settings say it."""
    parts = urlsplit(url)
    if parts.scheme != "postgresql":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parts.path[1:]}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:],
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.hostname,
        "PORT": parts.port,
    }


def configure(url: str) -> None:
    """Use the database at this URL."""
    settings.configure(
        SECRET_KEY="for tests",  # noqa: S106 - of a project that ends with the test
        DATABASES={"default": database_at(url)},
        INSTALLED_APPS=[*(f"django.contrib.{app}" for app in _APPS), "django_celery_results"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        USE_TZ=True,
    )
    django.setup()


def show() -> dict[str, Any]:
    """Return the results by id as the admin's pages and the model have them."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - models load only after the setup
    from django.test import Client  # noqa: PLC0415
    from django_celery_results.models import TaskResult  # noqa: PLC0415

    client = Client()
    client.force_login(User.objects.first() or User.objects.create_superuser("someone"))
    page = client.get("/admin/django_celery_results/taskresult/")
    shown = {}
    for result in TaskResult.objects.all():
        detail = client.get(f"/admin/django_celery_results/taskresult/{result.pk}/change/")
        shown[result.task_id] = {
            **result.as_dict(),
            "is_listed": page.status_code == detail.status_code == 200 and result.task_id in page.content.decode(),
        }
    return shown


if __name__ == "__main__":
    from django.contrib import admin
    from django.urls import path

    configure(sys.argv[2])
    urlpatterns = [path("admin/", admin.site.urls)]
    if sys.argv[1] == "migrate":
        call_command("migrate", verbosity=0)
    else:
        print(json.dumps(show(), default=str))  # noqa: T201 - its answer
