"""The dashboard as a person sees it, in a headless Chromium: sign in, look at trials, artifacts and plots, and try to
delete. Screenshots stay in screenshots/, for whoever wants to look at them.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import chrome
from conftest import Start
from making import ROOT, trained
from optuna.artifacts import upload_artifact
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from waiting import until

from affinity_search.search.view.pictures import PictureStore
from affinity_search.storage.database.backend import Backend
from affinity_search.storage.files import default_root
from affinity_search.storage.study import StoredStudy, study_names

pytestmark = pytest.mark.long

SCREENSHOTS = ROOT / "screenshots"
PASSWORD = "correct-horse-battery"
# The first two for root and for a container, the others because nobody is there to answer or to be told of updates.
# `fetch` as a page of ours would, with the login that the browser keeps.
DELETE = """
const done = arguments[arguments.length - 1];
fetch('/api/studies/1', {method: 'DELETE', body: '{}'}).then(async a => done([a.status, await a.text()]));
"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("no chromium and chromedriver on PATH; on Debian: apt-get install chromium chromium-driver")
    began = chrome(tmp_path_factory.mktemp("profile"))
    yield began
    began.quit()
    print(f"screenshots are in {SCREENSHOTS}")


@pytest.fixture
def study(sqlite: Backend) -> StoredStudy:
    """Twelve trials, the last with artifacts, one of which is hostile."""
    study = trained(sqlite, trials=11)
    trial = study.optuna.ask()
    root = default_root(sqlite.url)
    Image.linear_gradient("L").save(root.with_name("curve.png"))
    root.with_name("page.html").write_text("<script>fetch('/api/studies/1', {method: 'DELETE'})</script>")
    for name in ("curve.png", "page.html"):
        path = str(root.with_name(name))
        (root / "artifacts").mkdir(parents=True, exist_ok=True)
        upload_artifact(artifact_store=PictureStore(root), file_path=path, study_or_trial=trial)
    trial.set_user_attr("told", "words with blanks " * 50 + "and-without" * 50)
    study.optuna.tell(trial, 0.25)
    return study


@pytest.fixture
def address(study: StoredStudy, start: Start, tmp_path: Path) -> str:
    secret = tmp_path / "password"
    secret.write_text(f"ann:{PASSWORD}")
    secret.chmod(0o600)
    command = start(
        *("dashboard", "--port", "0", "--password-file", str(secret)),
        AFFINITY_SEARCH_STORAGE=study.backend.secret_url,
    )
    return until(lambda: re.search(r"http://(127\.0\.0\.1:\d+)/", command.said), "the dashboard's address")[1]


class Page:
    """What the browser shows at present."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self._browser = browser
        self._address = address

    def open(self, path: str, login: str = "") -> None:
        self._browser.get(f"http://{login}{self._address}{path}")

    def shows(self, *texts: str) -> None:
        for text in texts:
            until(lambda text=text: text in self.text, f"{text!r} on the page")

    @property
    def text(self) -> str:
        return str(self._browser.execute_script("return document.body.innerText"))

    def all(self, selector: str) -> list[webdriver.remote.webelement.WebElement]:
        return self._browser.find_elements(By.CSS_SELECTOR, selector)

    def keep(self, name: str) -> None:
        SCREENSHOTS.mkdir(exist_ok=True)
        assert self._browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def test_a_visitor_signs_in_looks_around_and_can_delete_nothing(
    browser: webdriver.Chrome, address: str, study: StoredStudy
) -> None:
    page = Page(browser, address)
    page.open("/dashboard")
    assert browser.title != "Optuna Dashboard"
    assert "tiny" not in browser.page_source
    page.keep("1-signed-out")

    page.open("/dashboard", login=f"ann:{PASSWORD}@")
    page.open("/dashboard")
    page.shows("1. tiny", "RELOAD")
    page.keep("2-studies")
    for label in ("delete study", "rename study"):
        (button,) = page.all(f'[aria-label="{label}"]')
        assert not button.is_displayed()
    assert "CREATE" not in page.text

    page.open("/dashboard/studies/1")
    page.shows("History", "1 - macro F1 (holdout)", "Hyperparameter Importance")
    until(lambda: page.all(".js-plotly-plot .scatterlayer .point"), "points in the history plot")
    page.keep("3-study")

    page.open("/dashboard/studies/1/trials?numbers=0")
    page.shows("Complete, rank ", "images scored", "best_epoch")

    page.open("/dashboard/studies/1/trials?numbers=11")
    page.shows("Trial 11 (trial_id=12)", "and-without", "Artifacts", "curve.png", "page.html")
    width, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= window
    (picture,) = page.all("img[src*='/artifacts/']")
    until(lambda: browser.execute_script("return arguments[0].naturalWidth", picture) == 256, "the artifact's picture")
    browser.execute_script("arguments[0].scrollIntoView()", picture)
    assert not any(icon.is_displayed() for name in ("Edit", "Delete") for icon in page.all(f"[data-testid={name}Icon]"))
    page.keep("4-trial")

    page.open("/dashboard/studies/1/analytics")
    page.shows("Slice", "Contour")
    until(lambda: page.all(".js-plotly-plot .scatterlayer .point"), "points in the slice plot")
    page.keep("5-plots")

    code, reason = browser.execute_async_script(DELETE)
    assert (code, "read-only" in reason) == (405, True)
    assert study_names(study.backend) == ["tiny"]


def test_a_hostile_artifact_is_saved_and_runs_nothing(
    browser: webdriver.Chrome, address: str, study: StoredStudy
) -> None:
    page = Page(browser, address)
    page.open("/dashboard", login=f"ann:{PASSWORD}@")
    page.open("/dashboard/studies/1/trials?numbers=11")
    page.shows("page.html")
    (link,) = page.all("a[download='page.html']")
    before = browser.current_url
    browser.get(str(link.get_attribute("href")))  # as somebody would who follows a link to it
    assert browser.current_url == before, "it was shown instead of saved"
    assert study_names(study.backend) == ["tiny"]
