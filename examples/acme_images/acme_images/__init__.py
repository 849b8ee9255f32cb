"""Kinds of the image team. Gateways import `acme_images.contracts`, workers also `acme_images.tasks`."""
