"""One small job per family through the gateway of a trial; each result is compared with a local computation."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING, Any

from shared.contract.families import FAMILIES
from shared.ledger.states import FINAL_STATES, State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

ROW_COUNT = 20_000
CATEGORIES = "abcde"
_JOB_BOUND_S = 120.0


class TrialError(Exception):
    """A check of the images failed; the text names the image and the error."""


def sales() -> tuple[str, dict[str, int]]:
    """Return a CSV text and its sums by category, without rows with a missing value."""
    dice = random.Random(9)  # noqa: S311 - sample figures
    rows = [(dice.choice(CATEGORIES), dice.choice([*range(1, 1000), ""])) for _ in range(ROW_COUNT)]
    text = io.StringIO()
    csv.writer(text).writerows([("category", "value"), *rows])
    sums: Counter[str] = Counter()
    for category, value in rows:
        sums[category] += int(value or 0)
    return text.getvalue(), dict(sums)


class Jobs:
    """Submits jobs to a gateway and waits for their results."""

    def __init__(
        self, gateway: str, source: str, warehouse: Path, expected: Mapping[str, int], told: Sequence[str]
    ) -> None:
        self._gateway = gateway
        self._source = source  # URL of the CSV for the workers
        self._warehouse = warehouse  # the SQLite file behind the connection `warehouse`
        self._expected = expected
        self._told = told  # what has been posted to the source's address
        self._dataset = ""

    def run(self) -> None:
        """Run the job of each family in the order of the register: the others take what `etl` made.

        Raises `TrialError`.
        """
        for family in FAMILIES:
            begun = time.monotonic()
            print(f"{family}: {JOBS[family](self)} in {time.monotonic() - begun:.1f} s", flush=True)

    def load(self) -> str:
        """Stage the CSV, sum by category, and load the sums into a table."""
        source = {"kind": "http", "url": self._source}
        self._dataset = self._result("etl.extract_data", {"source": source})["dataset"]["uri"]
        total = {"function": "sum", "column": "value"}
        steps = [
            {"op": "drop_missing"},
            {"op": "cast", "columns": {"value": "integer"}},
            {"op": "aggregate", "group_by": ["category"], "measures": {"value": total}},
        ]
        destination = {"kind": "table", "connection": "warehouse", "table": "trial"}
        pipeline = {"source": source, "transform": {"steps": steps}, "destination": destination}
        self._result("etl.run_pipeline", pipeline)
        with sqlite3.connect(f"file:{self._warehouse}?mode=ro", uri=True) as warehouse:
            loaded = dict(warehouse.execute("select category, value from trial").fetchall())
        _expect("the table of sums", self._expected, loaded)
        return f"{ROW_COUNT} rows, sums of {len(loaded)} categories as computed here"

    def train(self) -> str:
        """Train on the staged rows, and predict for them with the stored model."""
        training = {
            "dataset": self._dataset,
            "task": "classification",
            "target": "category",
            "estimator": {"kind": "random_forest", "n_estimators": 5, "max_depth": 4},
        }
        model = self._result("ml.train_model", training)["model"]
        predicted = self._result("ml.predict_batch", {"dataset": self._dataset, "model": model["uri"]})
        _expect("the rows predicted", ROW_COUNT, predicted["dataset"]["row_count"])
        _expect("the rows of all classes", ROW_COUNT, sum(predicted["class_counts"].values()))
        return f"a forest of {model['size_bytes']} bytes, {ROW_COUNT} rows predicted"

    def report(self) -> str:
        """Render the staged rows as a page with a chart and a table, and as a workbook."""
        totals = {"value": {"function": "sum", "column": "value"}}
        blocks = [
            {"kind": "bar", "title": "Value by category", "x": "category", "y": totals},
            {"kind": "table", "title": "Categories", "group_by": ["category"], "measures": totals},
        ]
        report = {
            "dataset": self._dataset,
            "title": "Trial",
            "formats": ["html", "xlsx"],
            "sections": [{"title": "All", "blocks": blocks}],
        }
        job = self._job("report.generate_report", report)
        page, workbook = job["result"]["reports"]
        text = self._get(f"{job['links']['artifacts']}/{page['name']}").decode()
        absent = [what for what in ("<svg", *(f"{total:,}" for total in self._expected.values())) if what not in text]
        _expect("what the page lacks", [], absent)
        return f"a page of {page['size_bytes']} bytes with every sum, a workbook of {workbook['size_bytes']} bytes"

    def back_up(self) -> str:
        """Back up the table of sums."""
        source = {"kind": "table", "connection": "warehouse", "table": "trial"}
        backup = self._result("maintenance.backup_data", {"source": source})
        _expect("the rows backed up", len(CATEGORIES), backup["row_count"])
        return f"{backup['row_count']} rows, digest {backup['digest'][:12]}"

    def call_back(self) -> str:
        """Have the end of a job told to the address of the CSV."""
        extraction = {"source": {"kind": "http", "url": self._source}}
        job = self._job("etl.extract_data", extraction, callback_url=self._source)
        deadline = time.monotonic() + _JOB_BOUND_S
        while not self._told:
            if time.monotonic() > deadline:
                raise TrialError(f"no callback within {_JOB_BOUND_S:.0f} s")
            time.sleep(0.2)
        told = json.loads(self._told[0])
        _expect("what the callback tells", ("job.succeeded", job["id"]), (told["type"], told["data"]["id"]))
        return f"{told['type']} told"

    def _result(self, kind: str, params: Mapping[str, Any]) -> Any:
        return self._job(kind, params)["result"]

    def _job(self, kind: str, params: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        """Return the job after it has succeeded. Raises `TrialError`."""
        job = self._call("/jobs", {"kind": kind, "params": params, "options": options})
        deadline = time.monotonic() + _JOB_BOUND_S
        while job["state"] not in FINAL_STATES:
            if time.monotonic() > deadline:
                raise TrialError(f"{kind} has not ended within {_JOB_BOUND_S:.0f} s: {json.dumps(job)}")
            job = self._call(f"/jobs/{job['id']}?wait_s=10")
        if job["state"] != State.SUCCEEDED:
            raise TrialError(f"{kind} did not succeed: {json.dumps(job)}")
        return job

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        answered: dict[str, Any] = json.loads(self._get(path, None if body is None else json.dumps(body).encode()))
        return answered

    def _get(self, path: str, content: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._gateway + path, content, headers)  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
                read: bytes = answer.read()
                return read
        except urllib.error.HTTPError as refused:
            raise TrialError(f"{path}: {refused.code} {refused.read().decode()}") from refused


JOBS: dict[str, Callable[[Jobs], str]] = {
    "etl": Jobs.load,
    "ml": Jobs.train,
    "report": Jobs.report,
    "maintenance": Jobs.back_up,
    "callbacks": Jobs.call_back,
}


def _expect(what: str, expected: object, actual: object) -> None:
    if actual != expected:
        raise TrialError(f"{what}: {actual} instead of {expected}")
