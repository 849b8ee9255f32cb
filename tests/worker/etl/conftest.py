"""Fixtures of the ETL tests."""

from tests.worker.etl.reading import read

__all__ = ["read"]
