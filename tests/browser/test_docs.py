"""The documentation page in a real browser: it opens, says nothing to the console, and its largest operations open."""

from __future__ import annotations

import json

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.support.servers.services import Server

pytestmark = pytest.mark.integration

# Of CPU time, so that what else the machine does is not counted; it takes a third of that on one at rest.
OPENS_WITHIN_S = 6.0
OPERATIONS = ("jobs-submit_job", "jobs-submit_batch", "schedules-create_schedule", "jobs-get_job")


def used_s(browser: webdriver.Chrome) -> float:
    """Return the CPU seconds of the page so far."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


@pytest.fixture(scope="module")
def page(chromium: webdriver.Chrome, gateway: Server) -> webdriver.Chrome:
    """Return the browser with the page open."""
    chromium.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    chromium.get(f"{gateway.url}/docs")
    WebDriverWait(chromium, 60).until(lambda shown: shown.find_elements(By.CSS_SELECTOR, ".opblock"))
    return chromium


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_opens_soon(page: webdriver.Chrome, operation: str) -> None:
    """With all kinds of job in its body."""
    block = page.find_element(By.ID, f"operations-{operation}")
    before_s = used_s(page)
    block.find_element(By.CSS_SELECTOR, ".opblock-summary-control").click()
    WebDriverWait(page, 60).until(lambda _: block.find_elements(By.CSS_SELECTOR, ".responses-wrapper"))
    assert used_s(page) - before_s <= OPENS_WITHIN_S


def test_a_body_is_filled_with_an_example_of_a_kind(page: webdriver.Chrome) -> None:
    """That can be sent as it is; another kind is one choice away."""
    page.find_element(By.CSS_SELECTOR, "#operations-jobs-submit_job .opblock-summary")
    shown = page.find_element(By.CSS_SELECTOR, "#operations-jobs-submit_job textarea.body-param__text")
    body = json.loads(shown.get_attribute("value") or "")
    kinds = page.find_elements(By.CSS_SELECTOR, "#operations-jobs-submit_job .examples-select-element option")
    assert body["kind"] in {kind.get_attribute("value") for kind in kinds}
    assert len(kinds) > 20


def test_the_page_breaks_no_rule_of_its_policy(page: webdriver.Chrome) -> None:
    """The console has no message of the content security policy, and no error."""
    lines = page.get_log("browser")  # type: ignore[no-untyped-call]
    assert [line for line in lines if line["level"] == "SEVERE"] == []
