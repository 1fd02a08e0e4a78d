"""A headless Chromium for tests, where one is installed with its driver. No test itself."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")


def missing() -> str | None:
    """Why there is no browser, None where there is one."""
    if CHROMIUM is None or DRIVER is None:
        return "no browser: install chromium and chromium-driver"
    try:
        import selenium  # noqa: F401 is it there
    except ImportError:
        return "no browser: pip install selenium"
    return None


@contextmanager
def window(width: int, height: int) -> Iterator[Any]:
    """A window of a size; below 500 pixels it says that it is a phone."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ["headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", "disable-dev-shm-usage", "no-proxy-server"]
    for flag in (*flags, "enable-unsafe-swiftshader", f"window-size={width},{height}"):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(DRIVER, log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        driver.set_page_load_timeout(180)
        yield driver
    finally:
        driver.quit()


def until(driver: Any, seen: Callable[[Any], Any], seconds: float = 180) -> Any:
    """Wait for something to be seen."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(driver, seconds, ignored_exceptions=ignored).until(seen)


def width_of(driver: Any) -> int:
    """Pixels that the page takes across, more than the window where it runs out of it."""
    return driver.execute_script("return document.documentElement.scrollWidth")
