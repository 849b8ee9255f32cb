"""Build and test the images: `python -m deploy.images`."""
