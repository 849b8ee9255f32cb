"""`@runs` and `Run`, under the name that older tasks import; `celeriac` has them too."""

from worker.runtime.run import Run
from worker.runtime.task import runs

__all__ = ["Run", "runs"]
