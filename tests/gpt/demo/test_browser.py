"""Pages in a real browser: the demo draws, completes and walks, and a report opens from disk, in a wide and a narrow window."""

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import browser
import pytest

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.missing() is not None, reason=browser.missing() or ""),
]


@pytest.fixture
def address(home):
    """The demo as people start it, on a free port."""
    command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--model", str(home / "gpt"), "--port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as served:
        try:
            yield re.search(r"http://\S+", served.stdout.readline()).group()
        finally:
            served.send_signal(signal.SIGTERM)
            served.wait(timeout=60)


@pytest.mark.skipif(find_spec("gradio") is None, reason="no Gradio: pip install -e '.[demo]'")
def test_the_demo_draws_completes_and_walks(address):
    with browser.window(390, 900) as driver:
        driver.get(address)
        find = driver.find_element

        def text(name):
            return find("id", name).text

        browser.until(driver, lambda _: "6 tokens" in text("about") and "toy/train/" in text("how-near"))
        assert browser.width_of(driver) == 390
        assert len(driver.find_elements("css selector", "#grid .grid-container img")) == 16
        browser.until(driver, lambda _: not driver.execute_script("return [...document.images].some(i => !i.alt)"))
        find("xpath", "//button[@role='tab'][text()='Complete']").click()
        browser.until(driver, lambda _: find("id", "held").is_displayed())
        find("id", "held").click()
        browser.until(driver, lambda _: "3 of 6 tokens kept" in text("kept-text"))
        picture = browser.until(driver, lambda _: find("css selector", "#kept img"))
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
        picture.click()  # its middle
        browser.until(driver, lambda _: "of 6 tokens kept" in text("kept-text") and "3 of" not in text("kept-text"))
        find("id", "complete").click()
        browser.until(driver, lambda _: "completions" in text("completed"))
        assert len(browser.until(driver, lambda _: driver.find_elements("css selector", "#completions img"))) > 2
        find("xpath", "//button[@role='tab'][text()='Walk']").click()
        browser.until(driver, lambda _: find("id", "walk").is_displayed())
        find("id", "walk").click()
        browser.until(driver, lambda _: find("css selector", "#film img"))
        assert not [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]


@pytest.mark.parametrize("width", [390, 1280])
def test_a_report_opens_from_disk(tmp_path, width):
    import torch

    from fields.view.page import Cell, Page
    from fields.view.render import save_png

    save_png(tmp_path / "wide.png", torch.rand(40, 1500, 3))
    page = Page("A report")
    page.table(["", *["1-NNA L2"] * 12], [["samples", *[Cell("0.500 ±0.020", "N = 7")] * 12]])
    page.picture(tmp_path / "wide.png", "a wide picture")
    page.write(tmp_path / "report.html")
    with browser.window(width, 800) as driver:
        driver.get((tmp_path / "report.html").as_uri())
        assert browser.width_of(driver) == width
        driver.find_element("css selector", "td + td [data-tip]").click()
        script = "return getComputedStyle(document.querySelector('td + td [data-tip]'), '::after').content"
        assert driver.execute_script(script) == '"N = 7"'
        assert not driver.get_log("browser")
