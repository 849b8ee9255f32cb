"""The ML family on real workers: one job from a file to predictions, over the etl and ml queues."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import StratifiedKFold, cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.support.servers.services import gateway_server, http_client
from tests.support.servers.workers import MAIN_THREADS, Jobs, crew

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers.services import Server
    from tests.support.servers.workers import Worker

pytestmark = pytest.mark.integration

MEASURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
LEARN: dict[str, Any] = {
    "task": "classification",
    "target": "species",
    "estimator": {"kind": "k_neighbors"},
    "seed": 3,
}
TRIALS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ml")


@pytest.fixture(scope="module")
def service(folder: Path, valkey: Server) -> Iterator[tuple[Jobs, Worker]]:
    """Run a gateway, an etl worker and an ml worker with two children."""
    env = {"CELERY_BROKER_URL": valkey.redis_url, "CELERIAC_STORE_URL": str(folder / "store")}
    with gateway_server(folder, **env) as gateway, crew(folder, **env) as workers:
        workers.start(WORKER_FAMILIES="etl")
        yield Jobs(gateway), workers.start(concurrency=2, WORKER_FAMILIES="ml")


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    """Return 150 flowers with short column names and an id."""
    bunch: Any = load_iris()
    frame = pd.DataFrame(bunch.data, columns=MEASURES)
    return frame.assign(species=[str(bunch.target_names[code]) for code in bunch.target], id=range(len(frame)))


@pytest.fixture(scope="module")
def source(service: tuple[Jobs, Worker], iris: pd.DataFrame) -> dict[str, str]:
    """Upload the flowers as CSV."""
    return {"kind": "artifact", "uri": uploaded(service[0], iris.to_csv(index=False).encode(), "iris.csv")}


def uploaded(jobs: Jobs, content: bytes, name: str) -> str:
    answer = http_client.post(f"{jobs.gateway.url}/uploads?name={name}", content=content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["uri"])


def test_a_pipeline_tunes_evaluates_and_predicts_under_one_id(
    service: tuple[Jobs, Worker], source: dict[str, str], iris: pd.DataFrame, folder: Path
) -> None:
    """Trials have scikit-learn's scores, the best one's predictions of held-out rows are scikit-learn's."""
    jobs, _ = service
    learn = {
        **LEARN,
        "kind": "tune",
        "space": {"n_neighbors": {"kind": "int", "low": 1, "high": 40}},
        "method": {"kind": "tpe", "rounds": 2, "trials_per_round": 2},
    }
    params = {"source": source, "features": {"drop": ["id"]}, "learn": learn, "predict": {"keep_columns": ["id"]}}
    job = jobs.ended(jobs.submit("ml.run_pipeline", params), bound_s=180)
    assert job["state"] == "succeeded", job["error"]
    steps = {step["name"]: step for step in job["steps"]}
    assert list(steps) == [
        "extract", "features", "start", "hold_0", "trial_0", "trial_1", "propose_1", "hold_1", "trial_2", "trial_3",
        "refit", "evaluate", "predict",
    ]  # fmt: skip
    assert {step["state"] for step in steps.values()} == {"succeeded"}
    train, test = train_test_split(iris, test_size=0.2, random_state=3, stratify=iris["species"])
    cut = StratifiedKFold(3, shuffle=True, random_state=3)
    for number in range(TRIALS):
        trial = steps[f"trial_{number}"]["result"]
        direct = neighbors(trial["params"]["n_neighbors"])
        scores = cross_val_score(direct, train[MEASURES], train["species"], cv=cut)
        assert trial["score"] == pytest.approx(scores.mean())
    best = steps["refit"]["result"]["best"]["params"]["n_neighbors"]
    answers = neighbors(best).fit(train[MEASURES], train["species"]).predict(test[MEASURES])
    evaluated = steps["evaluate"]["result"]["evaluation"]
    assert evaluated["scores"]["accuracy"] == pytest.approx((answers == test["species"]).mean())
    assert evaluated == steps["refit"]["result"]["summary"]["evaluation"]
    predictions = fetched(jobs, job["id"], folder, step="predict")
    assert predictions["id"].tolist() == sorted(test["id"])
    expected = dict(zip(test["id"], answers, strict=True))
    assert predictions["prediction"].tolist() == [expected[flower] for flower in predictions["id"]]


def neighbors(count: int) -> Any:
    return make_pipeline(StandardScaler(), KNeighborsClassifier(count))


def fetched(jobs: Jobs, job_id: str, folder: Path, **step: str) -> pd.DataFrame:
    """Return the predictions that a job, or a step of it, stored."""
    url = f"{jobs.gateway.url}/jobs/{job_id}/artifacts/predictions.parquet"
    answer = http_client.get(url, params=step)
    assert answer.status_code == 200, answer.text
    (folder / "predictions.parquet").write_bytes(answer.content)
    return pd.read_parquet(folder / "predictions.parquet")


def test_a_pipeline_trains_and_its_model_predicts_in_another_job(
    service: tuple[Jobs, Worker], source: dict[str, str], iris: pd.DataFrame, folder: Path
) -> None:
    """What the pipeline trained is an artifact that a later job takes; its card is served; progress was told."""
    jobs, _ = service
    learn = {**LEARN, "kind": "train", "estimator": {"kind": "logistic_regression"}}
    job = jobs.ended(jobs.submit("ml.run_pipeline", {"source": source, "learn": learn}), bound_s=120)
    assert job["state"] == "succeeded", job["error"]
    steps = {step["name"]: step for step in job["steps"]}
    assert list(steps) == ["extract", "features", "train", "evaluate"]
    assert job["result"]["model"] == steps["train"]["result"]["model"]
    card = http_client.get(f"{jobs.gateway.url}/jobs/{job['id']}/artifacts/model_card.html?step=train")
    assert "How well it predicts" in card.text
    rows = {"model": job["result"]["model"]["uri"], "dataset": steps["extract"]["result"]["dataset"]["uri"]}
    predicted = jobs.ended(jobs.submit("ml.predict_batch", rows))
    assert predicted["state"] == "succeeded", predicted["error"]
    found = fetched(jobs, predicted["id"], folder)
    assert (found["prediction"] == iris["species"]).mean() > 0.9


def test_hostile_and_impossible_requests(service: tuple[Jobs, Worker], source: dict[str, str]) -> None:
    """A pickle is not a model, a CSV no dataset; a hyperparameter that an estimator lacks is a 422 that names it."""
    jobs, _ = service
    staged = jobs.ended(jobs.submit("etl.extract_data", {"source": source}))["result"]["dataset"]["uri"]
    model = uploaded(jobs, pickle.dumps({"pipeline": print}), "model.skops")
    for dataset, code in ((staged, "unreadable_model"), (source["uri"], "unreadable_dataset")):
        job = jobs.ended(jobs.submit("ml.predict_batch", {"model": model, "dataset": dataset}))
        assert (job["state"], job["error"]["code"]) == ("failed", code)
    space = {"depth": {"kind": "int", "low": 1, "high": 4}}
    body = {"kind": "ml.tune_model", "params": {"dataset": source["uri"], **LEARN, "space": space}}
    answer = http_client.post(f"{jobs.gateway.url}/jobs", json=body)
    assert answer.status_code == 422
    assert "no hyperparameter 'depth'" in answer.text


def test_the_worker_forks_from_a_main_process_without_threads_of_libraries(service: tuple[Jobs, Worker]) -> None:
    """Numeric libraries start none before children are forked."""
    _, worker = service
    threads = [path.read_text() for path in Path(f"/proc/{worker.process.pid}/task").glob("*/comm")]
    assert len(threads) == MAIN_THREADS, threads
