"""Building the images, and trying them: `python -m deploy.images`."""
