"""The contract between gateway and workers: kinds, parameters, results, queues, and the ledger of jobs."""

__version__ = "0.1.0"
