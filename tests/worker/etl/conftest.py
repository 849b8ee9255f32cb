"""Fixtures of the ETL tests."""

from tests.support.reading import read

__all__ = ["read"]
