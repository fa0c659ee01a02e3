"""The page of a matrix run in a browser: what a person filters, sorts, opens and follows, and that it stays quiet."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from tests.unit.matrix_runs import CAUSES, HOSTS, TARGETS, large_run, result, run_of

from dibble.fleet.history import History
from dibble.fleet.model import Outcome
from dibble.fleet.reports.write import write_reports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

    from dibble.fleet.model import MatrixRun

pytestmark = pytest.mark.contract

PHONE = (390, 844)
DESK = (1440, 1000)
# Without the later ones Chromium calls home, which is refused and told in its log.
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--incognito",  # writes no history to a busy disk
)  # fmt: skip
# The page itself and its empty icon, among the requests.
OWN = ('"type":"Document"', '"url":"data:,"')
EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 2'>"


class Browser:
    """Headless Chromium at one page."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or "chromium"
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={DESK[0]},{DESK[1]}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))

    def open(self, page: Path, fragment: str = "") -> None:
        self.driver.get("about:blank")  # another fragment alone would not load it anew
        self.driver.get(page.as_uri() + fragment)

    def looks(self, size: tuple[int, int], scheme: str) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        wanted = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        media = {"features": [{"name": name, "value": value} for name, value in wanted.items()]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def all(self, selector: str) -> list[WebElement]:
        return [one for one in self.driver.find_elements(By.CSS_SELECTOR, selector) if one.is_displayed()]

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What is shown of all elements, in one question to the browser."""
        shown = "[...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
        texts: list[str] = self.driver.execute_script(f"return {shown}.map(e => e.innerText)", selector)
        return texts

    def choose(self, name: str, value: str) -> None:
        Select(self.one(f"#filters select[name={name}]")).select_by_value(value)

    def until(self, truth: Callable[[], bool]) -> None:
        WebDriverWait(self.driver, 20).until(lambda _driver: truth())

    def ask(self, script: str) -> object:
        answer: object = self.driver.execute_script(f"return {script}")
        return answer

    @property
    def fragment(self) -> str:
        return str(self.ask("location.hash"))

    def complaints(self) -> list[str]:
        """What the console holds since it was last asked, and requests for anything but a page."""
        told = [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]
        asked = [
            entry["message"]
            for entry in self.driver.get_log("performance")  # type: ignore[no-untyped-call]
            if all(part in entry["message"] for part in ('"Network.requestWillBeSent"', '"documentURL":"file:'))
        ]
        return told + [message for message in asked if not any(part in message for part in OWN)]


@pytest.fixture(scope="module")
def browser(debian_packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.driver.quit()


@pytest.fixture(autouse=True)
def _quiet(browser: Browser) -> Iterator[None]:
    browser.looks(DESK, "light")
    yield
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 187 cells with a history of four, and a change of each kind."""
    directory = tmp_path_factory.mktemp("run")
    history = History(directory / "history.sqlite")
    for number in range(1, 5):
        history.record(large_run(number))
    run = large_run(5, directory=directory)
    return write_reports(_with_failure(run), directory, history)[-1]


def _with_failure(run: MatrixRun) -> MatrixRun:
    """One cell that is newly failing, whatever the others do."""
    failure, reason, _ = CAUSES[0]
    failed = result("debian-12", "hostgen", Outcome.FAILED, failure, reason)
    return replace(run, results=(replace(failed, log=run.results[0].log), *run.results[1:]))


def test_filters_leave_what_fits_in_the_table_and_in_the_list(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.one("#shown").text == "187 cells"
    assert len(browser.texts("#matrix tbody tr")) == len(TARGETS)
    browser.choose("outcome", "failed")
    failed = browser.texts("#matrix a.cell:not(.out)")
    assert 0 < len(failed) < 30
    assert all("failed" in text for text in failed)
    browser.choose("host", "debian-12")
    browser.choose("class", "mirror mid-sync")
    browser.one("input[name=q]").send_keys("HOSTgen lists")
    assert browser.one("#shown").text == "1 of 187 cells"
    assert browser.texts("#matrix thead th") == ["debian-12"]
    assert browser.texts("#matrix a.cell:not(.out)") == ["failed\nmirror mid-sync\nnewly failing"]
    browser.one("input[value=list] + span").click()
    assert browser.texts(".list .cell-name") == ["debian-12/hostgen"]
    browser.one("input[name=q]").send_keys(" nothing at all")
    assert browser.one("#nothing").is_displayed()
    browser.one("#clear").click()
    assert browser.one("#shown").text == "187 cells"
    assert browser.fragment == "#view=list"


def test_cells_are_sorted_by_what_is_chosen(browser: Browser, page: Path) -> None:
    browser.open(page, "#view=list")
    browser.choose("sort", "-seconds")
    times = browser.texts(".list tbody .number[data-label=time]")[:3]
    assert times == sorted(times, reverse=True)
    assert browser.one(".list th[aria-sort=descending]").text.startswith("Time")
    browser.one(".list th button").click()  # by name
    names = browser.texts(".list .cell-name")
    assert names[0].startswith("centos-stream-9/")
    browser.one(".list th button").click()
    assert browser.texts(".list .cell-name") != names
    browser.open(page, "#view=table&sort=outcome")
    first = browser.ask("document.querySelector('#matrix tbody tr').innerText")
    assert "failed" in str(first)


def test_a_link_to_a_cell_opens_it_and_shows_all_that_is_known(browser: Browser, page: Path) -> None:
    browser.open(page, "#outcome=failed&cell=debian-12%2Fhostgen")
    details = browser.one("#details")
    assert details.is_displayed()
    text = details.text
    for shown in ("mirror mid-sync", "newly failing", "Attempts", "Since the previous run", "of the last 5 runs"):
        assert shown in text, shown
    log = browser.one("#details .log").text
    assert "Running root.d/10-hostgen" in log
    assert "\\xe4\\xf6\\xfc" in log
    browser.one("#details button[aria-label='next cell']").click()
    assert browser.one("#d-name").text != "debian-12/hostgen"
    assert "cell=" in browser.fragment
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.until(lambda: not details.is_displayed())
    assert browser.fragment == "#outcome=failed"


def test_a_success_shows_times_images_boot_and_its_trend(browser: Browser, page: Path) -> None:
    browser.open(page, "#cell=debian-13%2Ffedora-43")
    text = browser.one("#details").text
    for shown in ("Where the time went", "write qcow2", "login after", "fedora-43.qcow2", "Trend", "Images:"):
        assert shown in text, shown
    assert len(browser.all("#details .trends svg")) == 2


def test_the_keyboard_alone_reaches_every_cell(browser: Browser, page: Path) -> None:
    browser.open(page)
    active = browser.driver.switch_to
    browser.one("body").send_keys("/")
    assert active.active_element.get_attribute("name") == "q"
    browser.driver.execute_script("document.querySelector('#matrix a.cell[tabindex=\"0\"]').focus()")
    assert active.active_element.get_attribute("title") == "debian-12/hostgen"
    for key in (Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.END):
        active.active_element.send_keys(key)
    assert active.active_element.get_attribute("title") == f"{HOSTS[-1]}/{TARGETS[2]}"
    active.active_element.send_keys(Keys.ENTER)
    assert browser.one("#d-name").text == f"{HOSTS[-1]}/{TARGETS[2]}"
    active.active_element.send_keys(Keys.ARROW_LEFT)
    assert browser.one("#d-name").text == f"{HOSTS[-2]}/{TARGETS[2]}"
    active.active_element.send_keys(Keys.ESCAPE)
    browser.until(lambda: not browser.one("#details").is_displayed())
    assert str(active.active_element.get_attribute("title")) == f"{HOSTS[-1]}/{TARGETS[2]}"


def test_numbers_causes_and_changes_lead_to_their_cells_and_back(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.one(".causes a").click()
    assert browser.fragment.startswith("#note=")
    assert browser.one("#note-shown").is_displayed()
    browser.driver.back()
    browser.until(lambda: browser.one("#shown").text == "187 cells")
    browser.one(".changes a[href*='newly']").click()
    assert "newly failing" in browser.texts("#matrix a.cell:not(.out)")[0]
    assert browser.one("select[name=change]").get_attribute("value") == "newly failing"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen(browser: Browser, page: Path, tmp_path: Path, scheme: str) -> None:
    browser.looks(PHONE, scheme)
    browser.open(page, "#outcome=failed")
    assert browser.one(".list").is_displayed()
    assert browser.ask("document.documentElement.scrollWidth") == PHONE[0]
    browser.one(".list .cell-name a").click()
    assert browser.one("#details .log").is_displayed()
    assert browser.ask("document.documentElement.scrollWidth") == PHONE[0]
    assert browser.driver.save_screenshot(str(tmp_path / "phone.png"))
    back = "getComputedStyle(document.body).backgroundColor"
    assert (browser.ask(back) == "rgb(14, 18, 24)") == (scheme == "dark")


def test_nothing_that_a_build_says_is_taken_for_the_page(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "evil.log").write_text(f"{EVIL}\n\x1b[31mred\x1b[0m\x00\n")
    failure = CAUSES[2][0]
    bad = replace(result(EVIL, EVIL, Outcome.FAILED, failure, EVIL), log="evil.log", boot=EVIL)
    run = run_of(bad, result(target="'\"&<b>"), matrix=EVIL, version=EVIL)
    browser.open(write_reports(run, tmp_path, None)[-1])
    browser.one("#matrix a.cell.failed").click()
    assert browser.one("#d-name").text == f"{EVIL}/{EVIL}"
    assert browser.one("#details .log").text == f"{EVIL}\nred␀"
    assert browser.one("h1").text == EVIL
    assert browser.ask("window.evil") is None
    assert browser.ask("document.scripts.length") == 3


def test_five_hundred_cells_are_filtered_at_once(browser: Browser, tmp_path: Path) -> None:
    targets = [f"{name}-{number}" for name in TARGETS[2:12] for number in range(5)]
    run = large_run(9, hosts=HOSTS[:10], targets=targets)
    browser.open(write_reports(run, tmp_path, None)[-1], "#view=list")
    assert len(browser.texts(".list tbody tr")) == 500
    browser.one("input[name=q]").send_keys("sid-3 ubuntu")
    assert len(browser.texts(".list tbody tr")) == 2
