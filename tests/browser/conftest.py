"""A real browser: Chromium, without a window, driven through its own driver."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from selenium import webdriver


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    """Start Chromium; skip where it, or its driver, is not installed (not in CI)."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in programs.items() if path is None]:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI needs {missing}: install the Debian packages chromium and chromium-driver")
        pytest.skip(f"not installed: {', '.join(missing)}")
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
