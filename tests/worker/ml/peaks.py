"""Train in a process of its own, and print what memory each training was judged to need and what it took.

``python -m tests.worker.ml.peaks FOLDER CASES``: cases are JSON. It prints ``[[needed_bytes, taken_bytes], ...]``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from shared.errors import TaskFailure
from shared.jobs.ml.kinds import TrainModel
from tests.support.ml_runs import new_run, stored
from worker.ml import tasks
from worker.settings import worker_settings

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_WARM_ROWS = 1_000


def rows_of(case: dict[str, Any]) -> pd.DataFrame:
    """Return as many numbers, texts and classes as `case` says, of which two numbers tell the target."""
    random, count = np.random.default_rng(0), case["rows"]
    numbers = random.normal(size=(count, case["numbers"]))
    frame = pd.DataFrame(numbers, columns=[f"number {index}" for index in range(case["numbers"])])
    for index in range(case.get("texts", 0)):
        frame[f"text {index}"] = random.choice([f"value {level}" for level in range(50)], count)
    score = numbers[:, 0] + numbers[:, 1] ** 2 + random.normal(size=count)
    classes = case.get("classes")
    return frame.assign(y=score if classes is None else pd.qcut(score, classes, labels=False).astype(str))


def main(folder: Path, cases: list[dict[str, Any]]) -> None:
    for case in cases:
        frame = rows_of(case)
        task = "regression" if "classes" not in case else "classification"
        warm, whole = (
            TrainModel.model_validate({"dataset": stored(folder, part), "task": task, "target": "y", **case["spec"]})
            for part in (frame.head(_WARM_ROWS), frame)
        )
        del frame
        os.environ["CELERIAC_MEMORY_LIMIT_BYTES"] = str(2**25)
        worker_settings.cache_clear()
        try:
            tasks.train_model(whole, new_run(folder))
        except TaskFailure as refused:
            needed = refused.details["needed_bytes"]
        os.environ["CELERIAC_MEMORY_LIMIT_BYTES"] = str(2**40)
        worker_settings.cache_clear()
        tasks.train_model(warm, new_run(folder))
        gc.collect()
        pa.default_memory_pool().release_unused()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the peak so far is forgotten
        before = int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * _PAGE_BYTES
        tasks.train_model(whole, new_run(folder))
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("utf-8").splitlines())
        sys.stdout.write(json.dumps([needed, int(status["VmHWM"].split()[0]) * 1024 - before]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
