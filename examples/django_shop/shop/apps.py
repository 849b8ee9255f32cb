"""The application: its receivers are connected when Django is ready."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """Of the shop."""

    name = "shop"

    def ready(self) -> None:
        """Connect the receivers."""
        from shop import receivers  # noqa: F401, PLC0415
