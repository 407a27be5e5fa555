"""A report in a real browser, offline: front → SAE, sorting, filters, keyboard, both schemes, two widths.

    make test-browser

With SAELIGHT_SCREENSHOTS=FOLDER the pages that it looks at are kept there as pictures.
"""

from pathlib import Path

import pytest

from saelight.report.page import write_report
from tests.latents.shown_saes import columns, make_shards, name_tokens
from tests.report.invented import invent, read_results, write_results
from tests.support.chromium import SIZES, keep_picture
from tests.support.commands import CONFIG, changed, saelight_
from tests.support.commands import write as write_config

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Pages of a run that was trained, of 912 SAEs of which some failed, of both, of names that are HTML, and of no SAE."""
    folder = tmp_path_factory.mktemp("reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert saelight_("fit", "--config", write_config(CONFIG, "real.yaml"), "--trainer.log_every_n_steps", "1") == 0
    many = invent(folder / "many", 912, logged=100)
    rows = read_results(many)
    for row in rows[::50]:
        row |= {"state": "quarantined", "reason": "its loss was not finite, at step 812"}
    write_results(many, rows)
    nasty = "<img src=x onerror=alert(1)>"
    write_results(
        folder / "nasty", [rows[1] | {"name": nasty, "config": {"class_path": f"a.<b>{nasty}", "init_args": {"lr": 1}}}]
    )
    write_results(folder / "none", [])
    data = changed(CONFIG, data={"class_path": "ActivationDataModule", "init_args": {"path": "shards", "batch_size": 100}})
    make_shards(folder / "shards", **columns())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert saelight_("fit", "--config", write_config(data, "latents.yaml")) == 0
        assert saelight_("latents", "collect", "runs/latents") == 0
        for sae in Path("runs/latents/saes").iterdir():
            name_tokens(sae)
    sources = {
        "latents": ["runs/latents"],
        "real": ["runs/real"],
        "many": ["many"],
        "both": ["many", "runs/real"],
        "nasty": ["nasty"],
        "none": ["none"],
    }
    for name, paths in sources.items():
        write_report([folder / path for path in paths], folder / f"{name}.html")
    return folder


@pytest.fixture
def open_page(chromium, reports):
    """Opens a report; whatever it asks of a network, or complains of, fails the test."""
    contexts, said = [], []

    def opened(name: str, width: int = 1600, scheme: str = "light", at: str = ""):
        context = chromium.new_context(viewport={"width": width, "height": SIZES[width]}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on(
            "request", lambda request: said.extend([request.url] * (not request.url.startswith(("file:", "blob:", "data:"))))
        )
        page.goto((reports / f"{name}.html").as_uri() + at)
        page.wait_for_selector("html[data-drawn]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def names(page) -> list[str]:
    return page.locator("#saes-table tbody tr td:first-child").all_inner_texts()


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["real", "latents", "many", "both", "nasty", "none"])
def test_every_page_opens_fits_and_draws(open_page, name, width, scheme):
    page = open_page(name, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    if name != "none":
        page.locator("#front-chart").scroll_into_view_if_needed()  # charts are drawn when they come into view
        page.wait_for_selector("#front-chart .scatterlayer .points path", state="attached")
    page.evaluate("for (const node of views.keys()) { if (node.offsetParent) views.get(node)(shownSaes()); }")
    keep_picture(page, f"{name}-{width}-{scheme}", full_page=True)


def test_a_click_on_the_front_opens_the_sae_and_its_address_does_too(open_page):
    page = open_page("real")
    page.locator("#front-chart .points path").first.click(force=True)
    page.wait_for_selector("dialog[open]")
    title = page.locator("#sae-title").inner_text()
    assert title in ("relu", "topk")
    assert "saelight.load(" in page.locator("dialog pre").inner_text()
    assert page.locator("dialog .main-svg").count() > 3
    address = page.evaluate("location.hash")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="hidden")
    assert page.evaluate("location.hash") == ""
    assert open_page("real", 400, "dark", address).locator("#sae-title").inner_text() == title


@pytest.mark.parametrize(("width", "scheme"), [(1600, "light"), (400, "dark")])
def test_from_the_front_to_an_sae_to_a_latent(open_page, api, width, scheme):
    page = open_page("latents", width, scheme)
    page.locator("#front-chart").scroll_into_view_if_needed()
    page.locator("#front-chart .points path").first.click(force=True)
    page.wait_for_selector("#sae-latents")
    entries = page.locator("details.latent")
    assert entries.count() == page.evaluate("SAES[0].latents.list.length") > 8
    search = page.get_by_label("Search these latents")
    search.fill("word25")
    found = page.evaluate("SAES[0].latents.list.filter((latent) => latentText(latent).includes('word25')).length")
    assert 0 < found < entries.count()
    api.expect(page.locator("details.latent:visible")).to_have_count(found)
    api.expect(page.locator("#sae-latents output")).to_have_text(f"{found} of {entries.count()}")
    search.fill("")
    for i in range(entries.count()):
        entries.nth(i).locator("summary").focus()
        page.keyboard.press("Enter")
    contexts = page.locator("details.latent .context")
    assert contexts.count() > 8 * 5
    assert page.locator(".context .peak").count() == contexts.count()
    assert "<img src=x onerror=alert(1)>" in page.locator("#sae-latents").inner_text()
    assert page.locator("img").count() == 0
    assert page.evaluate("document.querySelector('#sae').scrollWidth <= document.querySelector('#sae').clientWidth")
    keep_picture(page, f"a-latent-{width}-{scheme}")


def test_sorting_filters_and_search(open_page, api):
    page = open_page("many")
    assert page.locator("#count").inner_text() == "912 of 912 SAEs"
    page.get_by_role("button", name="FVU").click()
    fvus = [float(text) for text in page.locator("#saes-table td:nth-child(7)").all_inner_texts()]
    assert fvus == sorted(fvus)
    page.get_by_role("button", name="FVU ▲").click()
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("FVU")
    assert [float(text) for text in page.locator("#saes-table td:nth-child(7)").all_inner_texts()] == sorted(
        fvus, reverse=True
    )
    page.get_by_label("Variant").select_option("TopK")
    assert page.locator("#count").inner_text() == "304 of 912 SAEs"
    page.get_by_label("State").select_option("quarantined")
    shown = names(page)
    assert shown
    assert all(name.startswith("topk-") for name in shown)
    assert "quarantined: its loss was not finite" in page.locator("#saes-table tbody td").nth(1).inner_text()
    page.get_by_label("State").select_option("")
    wanted = sum(
        row["variant"] == "TopK" and "topk-9" in row["names"][0] and row["state"] == "finished"
        for row in page.evaluate("SAES")
    )
    assert wanted > 0
    page.get_by_label("Search").fill("TOPK-9 finished")
    api.expect(page.locator("#count")).to_have_text(f"{wanted} of 912 SAEs")
    page.get_by_label("Search").fill("")
    api.expect(page.locator("#count")).to_have_text("304 of 912 SAEs")
    page.get_by_label("on a front").check()
    front = page.locator("#count").inner_text()
    assert 0 < int(front.split()[0]) < 304
    assert page.locator("#front-chart .points path").count() == int(front.split()[0])
    assert "its loss was not finite, at step 812" in page.locator("#ended-table").inner_text()


def test_all_of_it_goes_by_keyboard(open_page):
    page = open_page("real")
    page.locator("#saes-table tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    assert page.locator("#sae-title").inner_text() == names(page)[1]
    page.keyboard.press("Enter")  # on Close, which has the focus
    page.wait_for_selector("dialog", state="hidden")
    assert page.evaluate("document.activeElement.dataset.id") == "1"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.id") == "0"


def test_a_front_of_another_metric_and_all_columns(open_page, api):
    page = open_page("real")
    page.get_by_label("Against L0").select_option("cosine")
    api.expect(page.locator("#front-chart .ytitle")).to_have_text("cosine of input and reconstruction")
    assert "Left and up is better" in page.locator("#front-rule").inner_text()
    before = page.locator("#saes-table th").count()
    page.get_by_label("all columns").check()
    assert page.locator("#saes-table th").count() > before + 8


def test_names_that_are_html_are_shown_as_they_are(open_page):
    page = open_page("nasty")
    assert names(page) == ["<img src=x onerror=alert(1)>"]
    page.locator("#front-chart .points path").first.hover(force=True)
    page.wait_for_selector("#front-chart .hovertext", state="attached")
    assert "<img src=x onerror=alert(1)>" in page.locator("#front-chart .hovertext").text_content()
    assert page.locator("img").count() == 0
    page.locator("#saes-table tbody tr").first.click()
    assert page.locator("#sae-title").inner_text() == "<img src=x onerror=alert(1)>"


def test_912_saes_open_in_two_seconds(open_page):
    page = open_page("many")
    session = page.context.new_cdp_session(page)
    # The page's own thread's time: what else the machine does is no matter of its.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.reload()
    page.wait_for_selector("#front-chart .scatterlayer .points path", state="attached")
    spent = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert spent["TaskDuration"] < 2.0
