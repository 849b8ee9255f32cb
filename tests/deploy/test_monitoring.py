"""Prometheus' rules and Grafana's dashboard name only metrics and labels that a gateway has."""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis
import yaml
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import endpoint as metrics
from api.metrics.task_metrics import TaskMetrics
from shared.ledger.client import Ledger
from shared.ledger.keys import key
from shared.ledger.operations import AboutWorker, Presence
from tests.support.servers.services import Server

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "celeriac.json"

_FUNCTIONS = {"histogram_quantile", "increase", "max", "min", "rate", "sum"}
_OPERATORS = {"and", "by", "or", "unless", "without"}
_LABELS_OF_PROMETHEUS = {"instance", "job"}
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")


def rules() -> list[dict[str, str]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[str]:
    return [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]


EXPRESSIONS = [rule["expr"] for rule in rules()] + panels()


def labels_in(expression: str) -> Iterator[str]:
    """Yield the labels that a PromQL expression matches or groups by."""
    for listed in re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression):
        yield from _WORD.findall(listed)
    for matchers in re.findall(r"{([^}]*)}", expression):
        yield from re.findall(r"([A-Za-z_]\w*)\s*[=!]", matchers)


def metrics_in(expression: str) -> set[str]:
    """Return the words of a PromQL expression that are neither functions, operators, labels nor durations."""
    bare = re.sub(r"\b(by|without)\s*\([^)]*\)|{[^}]*}|\[[^\]]*\]", " ", expression)
    return set(_WORD.findall(bare)) - _FUNCTIONS - _OPERATORS


async def scrape(app: FastAPI) -> str:
    """Return what `app` shows after a request, so that requests have been counted, too."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        await client.get("/jobs")
        return (await client.get("/metrics")).text


@pytest.fixture(scope="module")
def exported(valkey: Server) -> dict[str, set[str]]:
    """Return the labels of each sample that a gateway exports once everything that is counted was counted."""
    kind = "etl.extract_data"
    with redis.Redis(port=valkey.port, decode_responses=True) as client:
        client.flushall()
        counted = [f"sent|{kind}|etl", f"submitted|{kind}", f"processed|{kind}|failed", f"ended|{kind}|failed"]
        client.hset(
            key("counters"), mapping=dict.fromkeys([*counted, f"ran|{kind}|1", f"ran_ms|{kind}", "kept|expired"], 1)
        )
        told = [f"failed|TaskFailure|w1@host|{kind}|etl", f"succeeded|w1@host|{kind}|etl"]
        client.set(key("rows_wanted"), 1)
        client.hset(key("event_counters"), mapping=dict.fromkeys([*told, f"ran_us|w1@host|{kind}|etl"], 1))
        about = AboutWorker("w1@host", "host", 1, ("etl",), concurrency=1, started_at=0, versions={})
        Presence(Ledger(client), owner="w1", lease_s=60).heartbeat(about, queues=["etl"], jobs=[])
        app = FastAPI(redirect_slashes=False)
        metrics.install(app).register(TaskMetrics(client))
        text = asyncio.run(scrape(app))
    found: defaultdict[str, set[str]] = defaultdict(set, up=set())
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] |= sample.labels.keys()
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = set().union(*(found[name] for name in metrics_in(rule["expr"])))
    return dict(found)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_metrics_and_labels_that_exist(exported: dict[str, set[str]], expression: str) -> None:
    """A renamed metric, or a label that it has not, would leave an alert silent and a panel empty."""
    named = metrics_in(expression)
    assert named - exported.keys() == set()
    assert set(labels_in(expression)) - set().union(*(exported[name] for name in named)) <= _LABELS_OF_PROMETHEUS


def test_a_name_that_does_not_exist_is_found() -> None:
    """The test above can fail: what it looks at are all metrics and all labels of an expression."""
    expression = (
        'sum by (task_name, le) (rate(celery_a_total{status=~"failed|quarantined", kind!="b"}[5m])) / celery_b > 0.1'
    )
    assert metrics_in(expression) == {"celery_a_total", "celery_b"}
    assert set(labels_in(expression)) == {"task_name", "le", "status", "kind"}


def test_texts_of_alerts_use_labels_that_their_expressions_leave(exported: dict[str, set[str]]) -> None:
    """`{{ $labels.x }}` of a label that is not there would be empty."""
    for rule in rules():
        labels = set().union(*(exported[name] for name in metrics_in(rule["expr"]))) | _LABELS_OF_PROMETHEUS
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule.get("annotations", {}))))
        assert used <= labels, rule["alert"]


def test_no_metric_of_the_ledger_is_added_up_over_gateways() -> None:
    """Every gateway shows the ledger's totals, so a sum over instances would count each task as often as they are."""
    for expression in EXPRESSIONS:
        if "celery_" in expression:
            bare = re.sub(r"max without \(instance\) \((?:[^()]|\([^()]*\))*\)", "", expression)
            assert "celery_" not in bare, expression


def test_the_scrape_configuration_loads_the_rules() -> None:
    """Prometheus finds the rules beside its configuration, and one job scrapes everything."""
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert configuration["rule_files"] == [RULES.name]
    assert [job["job_name"] for job in configuration["scrape_configs"]] == ["celeriac"]
