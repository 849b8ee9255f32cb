"""The URLs of the shop, of the admin, and where Celeriac sends outcomes."""

from django.contrib import admin
from django.urls import include, path

from shop import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("celeriac/", include("celeriac.django.urls")),
    path("orders", views.take_order),
    path("orders/<int:number>", views.show_order),
]
