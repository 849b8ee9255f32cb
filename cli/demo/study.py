"""The demo's second job: one workflow over three families of workers that uses the loaded table.

extract the table -> make features -> (train a model | search for a better one | render a report)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from cli.client.watch import follow, live_view
from cli.demo.checks import TABLE, Off
from cli.pages.output import duration_s, show_error, show_table
from shared.ledger.states import State

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from celeriac.client import Client

SEED = 7
_TRIALS_SHOWN = 5
_WITHIN_S = 300.0
_LEARNT = {"task": "regression", "target": "value", "seed": SEED}


def study(gateway: Client, out: Console) -> dict[str, Any]:
    """Submit the workflow, show it live, and return the ended job. Raises `Off` if it does not succeed."""
    return run_job(gateway, "workflow.chain", {"steps": [_extract(), _as_numbers(), _side_by_side()]}, out)


def run_job(gateway: Client, kind: str, params: Mapping[str, Any], out: Console) -> dict[str, Any]:
    """Submit a job, show it live, and return it when it has ended. Raises `Off` if it does not succeed."""
    accepted = gateway.submit(kind, params)
    out.print(f"POST {gateway.url}/jobs -> 202, {gateway.url}{accepted.document['links']['self']}")
    with live_view(out) as view:
        job = dict(follow(gateway, accepted.id, view, timeout_s=_WITHIN_S).document)
    if job["state"] != State.SUCCEEDED:
        if job["error"]:
            show_error(job["error"], out)
        raise Off(f"the job is {job['state']}")
    return job


def _extract() -> dict[str, Any]:
    return {
        "kind": "etl.extract_data",
        "name": "extract",
        "params": {"source": {"kind": "sql", "connection": "warehouse", "table": TABLE}},
    }


def _as_numbers() -> dict[str, Any]:
    """SQLite stores decimals as exact text, but models and charts need numbers."""
    cast = {"op": "cast", "columns": {"value": "float", "date": "date"}}
    return {"kind": "etl.transform_data", "name": "numbers", "params": {"steps": [cast]}}


def _side_by_side() -> dict[str, Any]:
    train = {"estimator": {"kind": "random_forest", "n_estimators": 60}, **_LEARNT}
    search = {
        "estimator": {"kind": "hist_gradient_boosting"},
        "space": {
            "learning_rate": {"kind": "float", "low": 0.02, "high": 0.5, "log": True},
            "max_leaf_nodes": {"kind": "int", "low": 7, "high": 63},
        },
        "method": {"kind": "tpe", "rounds": 2, "trials_per_round": 4},
        **_LEARNT,
    }
    steps = [
        {"kind": "ml.train_model", "name": "train", "params": train},
        {"kind": "ml.tune_model", "name": "tune", "params": search},
        {"kind": "report.generate_report", "name": "report", "params": _report()},
    ]
    return {"kind": "workflow.group", "name": "study", "params": {"steps": steps}}


def _report() -> dict[str, Any]:
    revenue = {"revenue": {"function": "sum", "column": "value"}}
    every = {**revenue, "orders": {"function": "sum", "column": "orders"}}
    charts: list[dict[str, Any]] = [
        {"kind": "line", "title": "Revenue by week", "x": "date", "x_unit": "week", "y": revenue},
        {"kind": "bar", "title": "Revenue by category", "x": "category", "y": revenue},
        {
            "kind": "heat_map",
            "title": "Revenue by weekday and category",
            "x": "date",
            "x_unit": "weekday",
            "y": "category",
            "value": revenue["revenue"],
        },
        {"kind": "box", "title": "Revenue of a day", "x": "category", "y": "value"},
    ]
    table = {
        "kind": "table",
        "title": "Categories",
        "group_by": ["category"],
        "measures": every,
        "columns": [
            {"column": "category", "label": "Category"},
            {"column": "revenue", "label": "Revenue", "total": "sum"},
            {"column": "orders", "label": "Orders", "total": "sum"},
        ],
        "sort": [{"column": "revenue", "order": "desc"}],
    }
    return {
        "title": "Sales of 2025",
        "subtitle": f"From the table {TABLE}, as the pipeline loaded it",
        "formats": ["html", "xlsx"],
        "sections": [{"title": "Overview", "blocks": [table, *charts]}],
    }


def show_models(job: Mapping[str, Any], folder: Path, out: Console) -> None:
    """Print the scores of the models on held-out rows. Raises `Off` if one is not better than the mean."""
    steps = {step["name"]: step for step in job["steps"]}
    trained, tuned = steps["study/train"], steps["study/tune/refit"]
    grid = Table(box=None, pad_edge=False)
    for title in ("model", "held-out rows", "R2", "R2 of the mean", "mean error", "took"):
        grid.add_column(title, justify="left" if title == "model" else "right")
    for name, step in (("random forest", trained), ("boosting, tuned", tuned)):
        judged = step["result"]["summary"]["evaluation"]
        scores, baseline = judged["scores"], judged["baseline"]
        took = f"{duration_s(step) or 0:.1f} s"
        grid.add_row(
            name,
            f"{judged['row_count']:,}",
            f"{scores['r2']:.4f}",
            f"{baseline['r2']:.4f}",
            f"{scores['mae']:,.1f}",
            took,
        )
        if not scores["r2"] > baseline["r2"]:
            raise Off(f"{name} is not better than the mean of its training rows")
    out.print(f"\nRevenue per day and category, trained on {TABLE}:")
    show_table(grid, out)
    _show_trials(tuned["result"], out)
    for step in (trained, tuned):
        for role in ("model", "card"):
            out.print(f"  {step['name']:<18} {role:<6} {local_path(folder, step['result'][role])}", markup=False)


def _show_trials(result: Mapping[str, Any], out: Console) -> None:
    trials = sorted(result["trials"], key=lambda trial: -(trial["score"] if trial["score"] is not None else -1e9))
    out.print(f"\nThe best of {len(trials)} trials, evaluated by {result['metric']} in folds of the training rows:")
    grid = Table("trial", "state", "score", "hyperparameters", box=None, pad_edge=False)
    for trial in trials[:_TRIALS_SHOWN]:
        score = "" if trial["score"] is None else f"{trial['score']:.4f}"
        params = ", ".join(f"{name} {_short(value)}" for name, value in trial["params"].items())
        grid.add_row(str(trial["number"]), trial["state"], score, params)
    show_table(grid, out)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_reports(job: Mapping[str, Any], folder: Path, out: Console) -> None:
    """Print the paths of the rendered files. Raises `Off` if one is missing."""
    for step in [*job["steps"], job]:
        for report in (step["result"] or {}).get("reports", []):
            path = local_path(folder, report)
            if not path.is_file() or path.stat().st_size != report["size_bytes"]:
                raise Off(f"{path} does not have the {report['size_bytes']:,} bytes in the job's result")
            out.print(f"  {report['name']:<18} {path}", markup=False)


def local_path(folder: Path, artifact: Mapping[str, Any]) -> Path:
    """Return the path of an artifact in the embedded service."""
    return folder / "artifacts" / str(artifact["uri"]).removeprefix("artifact://")
