"""The URLs to include: `path("celeriac/", include("celeriac.django.urls"))`."""

from __future__ import annotations

from django.urls import path

from celeriac.django.callbacks import receive

app_name = "celeriac"
urlpatterns = [path("callbacks/<uuid:key>/", receive, name="callback")]
