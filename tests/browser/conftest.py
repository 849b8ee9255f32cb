"""A real browser: Chromium, without a window, driven through its own driver."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver

from tests.support.servers.absent import absent


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """Start Chromium; skip where it, or its driver, is not installed (not in CI)."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in programs.items() if path is None]:
        absent(f"not installed (Debian: chromium, chromium-driver): {', '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs["chromium"])
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1440,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs["chromedriver"]))
    try:
        yield browser
    finally:
        browser.quit()
