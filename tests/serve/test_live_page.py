"""The served page in a real browser: a run that starts, goes on, is stopped and resumed; fronts, SAEs, latents, own text.

    make test-browser

With SAELIGHT_SCREENSHOTS=FOLDER the pages that it looks at are kept there as pictures.
"""

import signal
import subprocess
import sys
import time

import pytest

from tests.support.chromium import SIZES, keep_picture
from tests.support.commands import saelight_, write
from tests.support.import_graph import PACKAGE

pytestmark = pytest.mark.browser
SAES = {
    "topk-8": {"class_path": "TopK", "init_args": {"d_sae": 256, "k": 8, "lr": 3e-3}},
    "topk-32": {"class_path": "TopK", "init_args": {"d_sae": 256, "k": 32, "lr": 3e-3}},
    "relu": {"class_path": "ReLU", "init_args": {"d_sae": 256, "sparsity": 0.1, "lr": 3e-3}},
}
FIT = {
    "trainer": {
        "max_epochs": 4,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "name": "words",
        "log_every_n_steps": 5,
    },
    "model": {"saes": SAES},
    "data": {"class_path": "ActivationDataModule", "init_args": {"path": "shards/minilm", "batch_size": 256}},
}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server that trains, over a run of three SAEs on MiniLM whose latents are known."""
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        harvest = PACKAGE.parent / "configs" / "harvest-minilm.yaml"
        small = ("--files", '["{stdlib}/json/*.py"]', "--max_tokens", "8000", "--out", "shards/minilm")
        assert saelight_("shards", "harvest", "--config", str(harvest), *small) == 0
        assert saelight_("fit", "--config", write(FIT)) == 0
        assert saelight_("latents", "collect", "runs/words") == 0
    command = [sys.executable, "-m", "saelight", "serve", "--train", "--port", "0"]
    log = (folder / "server.txt").open("w+")
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().partition("open ")[2].partition(" ")[0]
    server.send_signal(signal.SIGINT)
    assert server.wait(180) == 0
    server.stdout.close()
    log.seek(0)
    assert log.read() == ""
    log.close()


@pytest.fixture
def open_page(chromium, address):
    """Opens a page; whatever it asks elsewhere, or complains of, fails the test."""
    contexts, said = [], []

    def opened(path: str, width: int = 1600, scheme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: said.extend([request.url] * (not request.url.startswith((address, "data:", "blob:"))))
        )
        page.goto(address + path)
        page.wait_for_selector("html[data-drawn]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def until(page, expression: str, seconds: float = 120) -> None:
    """Wait until JavaScript is true. The page's policy forbids Playwright's own way, which evaluates text inside it."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, expression
        page.wait_for_timeout(100)


def test_from_the_front_to_an_sae_to_a_latent_and_an_own_text(open_page, api):
    page = open_page("show?of=words")
    api.expect(page.locator("#live")).to_have_text("● follows training")
    page.locator("#front-chart .points path").first.click(force=True)
    page.wait_for_selector("dialog[open]")
    assert page.locator("#sae-title").inner_text() in SAES
    page.locator("#sae-curves .main-svg").first.wait_for(state="attached")
    until(page, "document.querySelector('#sae-curves .scatterlayer path') !== null")
    page.get_by_text("Its latents").click()
    page.locator("#all-latents tbody .link").first.click()
    api.expect(page.locator("#latent h2")).to_contain_text("Latent ")
    assert page.locator("#latent .context").count() > 3
    page.get_by_text("Try your own text").click()
    page.get_by_label("Your own text").fill("def read(path): return open(path).read()")
    page.get_by_role("button", name="Try it").click()
    page.locator("#text-found table").wait_for(timeout=180_000)
    assert page.locator("#text-found .words").inner_text() == "def read(path): return open(path).read()"
    assert "L0 " in page.locator("#text-found .rule").inner_text()
    page.evaluate("document.querySelector('#sae-text').scrollIntoView()")
    keep_picture(page, "live-text")
    page.get_by_role("button", name="what it fires on").first.click()
    api.expect(page.locator("#latent h2")).to_contain_text("Latent ")


def test_latents_are_searched_over_all_saes(open_page, api):
    page = open_page("show?of=words")
    page.get_by_label("What they fire on").fill("self")
    page.get_by_role("button", name="Search all SAEs").click()
    api.expect(page.locator("#latents-found .rule")).to_contain_text("in 3 of 3 SAEs whose latents are known")
    assert page.locator("#latents-found tbody tr").count() > 3
    page.evaluate("document.querySelector('#latents').scrollIntoView()")
    keep_picture(page, "live-latents")
    page.locator("#latents-found tbody tr").first.locator(".link").nth(1).click()
    api.expect(page.locator("#latent h2")).to_contain_text("Latent ", timeout=10_000)
    assert "self" in page.locator("#latent").inner_text()


def test_a_run_is_watched_as_it_starts_goes_on_is_stopped_and_resumed(open_page, api, address):
    page = open_page("")
    asked = {
        "activation_data_path": "shards/minilm",
        "layer_idx": 3,
        "latent_dim": 512,
        "max_epochs": 200,
        "batch_size": 256,
    }
    answer = page.request.post(f"{address}api/sae/train-fast", data=asked, timeout=180_000)
    assert answer.status == 202, answer.text()
    job = answer.json()
    api.expect(page.locator("#folders")).to_contain_text("fast", timeout=60_000)
    keep_picture(page, "live-home")
    page = open_page("show?of=fast")
    state = page.locator("#job p").first
    api.expect(state).to_contain_text("running", timeout=180_000)
    api.expect(page.locator("#groups-table progress")).to_be_visible(timeout=180_000)
    until(page, "SAES[0].steps > 0", 180)
    before = page.evaluate("SAES[0].steps")
    until(page, f"SAES[0].steps > {before}", 120)
    # Whatever changes, what a person has chosen stays.
    page.get_by_label("Search", exact=True).fill("batch")
    api.expect(page.locator("#count")).to_have_text("1 of 2 SAEs")
    page.locator("#front-chart").scroll_into_view_if_needed()
    box = page.locator("#front-chart .nsewdrag").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 200, steps=4)
    page.mouse.up()
    zoomed = "document.getElementById('front-chart').layout.xaxis.range"
    until(page, f"{zoomed} !== undefined")
    page.wait_for_timeout(500)
    zoom = page.evaluate(zoomed)
    page.locator("#saes-table tbody tr").focus()
    version = page.evaluate("DATA.id")
    until(page, f"DATA.id !== '{version}'", 120)
    assert page.locator("#count").inner_text() == "1 of 2 SAEs"
    assert page.evaluate("document.activeElement.dataset.id") == "1"
    assert page.evaluate(zoomed) == pytest.approx(zoom)
    page.get_by_label("Search", exact=True).fill("")
    page.locator("#curves").scroll_into_view_if_needed()
    until(page, "document.querySelectorAll('#curves-charts .scatterlayer path').length > 2", 120)
    page.get_by_role("button", name="log", exact=True).click()
    api.expect(page.locator("#log-text")).not_to_be_empty(timeout=60_000)
    page.locator("#log").get_by_role("button", name="Close").click()
    until(page, "SAES[0].steps > 4", 180)
    for width in SIZES:
        for scheme in ("light", "dark"):
            other = open_page("show?of=fast", width, scheme)
            other.wait_for_timeout(500)
            assert other.evaluate("document.documentElement.scrollWidth <= innerWidth")
            keep_picture(other, f"live-running-{width}-{scheme}")
    page.get_by_role("button", name="Stop").click()
    api.expect(state).to_contain_text("stopped", timeout=180_000)
    api.expect(page.locator("#sources")).to_contain_text("2 interrupted")
    api.expect(page.locator("#seen")).to_contain_text("interrupted")
    stopped = page.evaluate("SAES[0].steps")
    page.get_by_role("button", name="Resume").click()
    api.expect(page.locator("#sources")).to_contain_text("2 running", timeout=180_000)
    until(page, f"SAES[0].state === 'running' && SAES[0].steps > {stopped}", 180)
    page.get_by_role("button", name="Stop").click()
    api.expect(state).to_contain_text("stopped", timeout=180_000)
    assert job["page"] == "/show?of=fast"


def test_two_are_seen_side_by_side(open_page, api):
    page = open_page("")
    boxes = page.get_by_role("checkbox")
    api.expect(boxes).to_have_count(2)
    for box in boxes.all():
        box.check()
    page.get_by_role("button", name="Open side by side").click()
    page.wait_for_selector("html[data-drawn]", state="attached")
    assert page.locator("#sources b").count() == 2
    assert page.locator("#count").inner_text() == "5 of 5 SAEs"
    assert page.locator("#groups-table tbody tr").count() == 2


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_fits(open_page, width, scheme):
    for name, path in (("home", ""), ("words", "show?of=words")):
        page = open_page(path, width, scheme)
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        keep_picture(page, f"live-{name}-{width}-{scheme}")
    page.evaluate("location.hash = 'sae-0'")
    page.get_by_text("Its latents").click()
    page.locator("#all-latents tbody .link").first.click()
    page.locator("#latent .context").first.wait_for()
    assert page.evaluate("document.querySelector('#sae').scrollWidth <= document.querySelector('#sae').clientWidth")
    keep_picture(page, f"live-latent-{width}-{scheme}")
