"""What defines a kind of job: the contract, its options, and the files it names.

The names that contracts are written with can be imported from here; `celeriac` has them too.
"""

from shared.contract.definition import Contract, FedFromUpstream, Limits, Retry

__all__ = ["Contract", "FedFromUpstream", "Limits", "Retry"]
