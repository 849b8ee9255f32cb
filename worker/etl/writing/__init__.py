"""Datasets written into files of a store."""
