"""The page in a real browser: nothing is loaded, nothing runs but its own script, it sorts, slides and enlarges.

Needs Debian's chromium and chromium-driver. Without them these tests are skipped, under CI=true they fail.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import change, enrich, make_comparison, make_judged, make_run, measure, set_measure

from generama.report.collect import collect
from generama.report.page import render

EVIL = "<img src=x onerror=document.title='hacked'><script>document.title='hacked'</script>"
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb",
)  # fmt: skip
# The colours that the browser really paints: text on all backgrounds beneath it, as (ratio, what) below the limit.
CONTRAST = """
const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
const brush = canvas.getContext("2d", {willReadFrequently: true});
const painted = (colours) => {
  brush.clearRect(0, 0, 1, 1);
  colours.forEach((colour) => { brush.fillStyle = colour; brush.fillRect(0, 0, 1, 1); });
  return Array.from(brush.getImageData(0, 0, 1, 1).data.slice(0, 3));
};
const light = (rgb) => {
  const [r, g, b] = rgb.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const weak = new Map();
document.querySelectorAll("body *").forEach((element) => {
  const own = Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || element.closest("script, style, title, dialog") || !element.getClientRects().length) return;
  const style = getComputedStyle(element), below = [];
  for (let at = element; at; at = at.parentElement) below.unshift(getComputedStyle(at).backgroundColor);
  const ink = element.closest("svg") ? style.fill : style.color;
  const [a, b] = [light(painted(below)), light(painted([...below, ink]))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) weak.set(`${element.tagName}.${element.getAttribute("class")}`, ratio);
});
return Array.from(weak);
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Debian's Chromium with an empty profile, its console and its network under watch."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        said = "chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(said)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of a full comparison, and of each kind of comparison that went wrong."""
    root = tmp_path_factory.mktemp("pages")
    full = [enrich(make_run(root / "full", name, seed, frechet + seed, seconds)) for name, frechet, seconds in
            (("vae", 31.0, 0.003), ("dcgan", 24.0, 0.002), ("ddpm", 14.0, 0.9)) for seed in (0, 1)]  # fmt: skip
    make_comparison(root / "full", full, seeds=[0, 1])
    crashed, running, broken = (make_run(root / name, "vae") for name in ("crashed", "running", "nan"))
    change(crashed / "status.json", state="failed", error="out of memory")
    (crashed / "metrics.json").unlink()
    shutil.rmtree(crashed / "samples")
    change(running / "status.json", state="running")
    set_measure(broken, "frechet", measure(float("nan"), 3.0))
    (broken / "log.jsonl").write_text('{"step": 1, "images": 11, "loss/model": NaN}\n')
    (root / "empty").mkdir()
    for name in ("ours", "theirs"):
        make_judged(root / "judged", name)
    evil = make_run(root / "evil", "vae")
    data = json.loads((evil / "recipe.json").read_text())["data"] | {"name": EVIL, "class_names": [EVIL] * 3}
    change(evil / "recipe.json", name=EVIL, data=data, command=EVIL, machine={EVIL: EVIL})
    change(evil / "status.json", state="failed", error=EVIL, budget=EVIL)
    change(evil / "metrics.json", extractor=EVIL, extractor_note=EVIL)
    finding = dict.fromkeys(("key", "severity", "title", "evidence", "advice"), EVIL)
    (evil / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    found = {folder.name: folder / "report.html" for folder in root.iterdir()}
    for page in found.values():
        page.write_text(render(collect(page.parent)), encoding="utf-8")
    return found


def open_page(browser: Any, page: Path, width: int = 1280, scheme: str = "light") -> None:
    """Open a page anew at a width and in a colour scheme, with empty logs."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}  # a page that glides is hard to hit
    features = [{"name": name, "value": value} for name, value in wishes.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())


def all_of(browser: Any, selector: str) -> list[Any]:
    return browser.find_elements("css selector", selector)


def soon(condition: Callable[[], bool]) -> bool:
    """Whether a condition holds within ten seconds: a busy machine paints late."""
    ending = time.monotonic() + 10
    while not condition() and time.monotonic() < ending:
        time.sleep(0.05)
    return condition()


def requests_of(browser: Any) -> list[str]:
    """Addresses asked for since the page was opened, itself first; what the policy blocked never left the browser."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    failed = [e["params"] for e in events if e["method"] == "Network.loadingFailed"]
    blocked = {failure["requestId"] for failure in failed if failure.get("blockedReason") == "csp"}
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [request["request"]["url"] for request in sent if request["requestId"] not in blocked]


@pytest.mark.parametrize("name", ["full", "crashed", "running", "nan", "empty", "judged", "evil"])
def test_no_page_asks_the_network_or_complains(browser: Any, pages: dict[str, Path], name: str) -> None:
    open_page(browser, pages[name])
    assert browser.get_log("browser") == []
    asked = requests_of(browser)
    assert asked[0] == pages[name].as_uri()
    assert all(address.startswith("data:") for address in asked[1:])
    assert browser.title.endswith("Generama") and all_of(browser, "h1")[0].is_displayed()


@pytest.mark.parametrize(
    ("name", "said"),
    [("crashed", "failed: out of memory"), ("running", "still running"), ("nan", "frechet is not a number"),
     ("empty", "No run was found")],
)  # fmt: skip
def test_what_went_wrong_is_said_in_the_first_screen(
    browser: Any, pages: dict[str, Path], name: str, said: str
) -> None:
    open_page(browser, pages[name])
    (warning,) = all_of(browser, ".warning")
    assert said in warning.text and warning.is_displayed() and warning.location["y"] < 500


def test_judged_pictures_are_not_asked_for_a_training(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["judged"])
    assert all_of(browser, ".warning") == [] and all_of(browser, "#training") == []
    assert len(all_of(browser, ".gallery img")) == 2


def test_names_do_not_run(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["evil"])
    assert "hacked" not in browser.title.replace(EVIL, "")
    assert browser.execute_script("return document.scripts.length") == 1
    assert EVIL in all_of(browser, "h1")[0].text


def test_policy_is_in_force(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["full"])
    browser.execute_script("""
        const script = document.createElement("script");
        script.textContent = "document.title = 'hacked'";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<p id=bait onclick=\\"document.title='hacked'\\">x</p>");
        document.getElementById("bait").click();
        new Image().src = "http://127.0.0.1:9/picture.png";
    """)
    assert "hacked" not in browser.title
    said: list[str] = []

    def complained() -> bool:
        said.extend(entry["message"] for entry in browser.get_log("browser"))
        return sum("Content Security Policy" in message for message in said) >= 3

    assert soon(complained)
    assert not [address for address in requests_of(browser) if address.startswith("http")]


def test_table_sorts_by_click_and_by_key(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pages["full"])

    def order() -> list[str]:
        return [head.get_attribute("data-sort") for head in all_of(browser, ".measures tbody th")]

    assert order() == ["ddpm", "dcgan", "vae"]
    (frechet,) = [b for b in all_of(browser, ".measures thead button") if b.text.startswith("Fréchet")]
    frechet.click()
    assert soon(lambda: order() == ["vae", "dcgan", "ddpm"])
    recipe = all_of(browser, ".measures thead button")[0]
    recipe.send_keys(Keys.ENTER)
    assert soon(lambda: order() == ["dcgan", "ddpm", "vae"])
    assert recipe.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"


def test_both_sliders_move(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pages["full"])
    for section, first, last in (("#training", "11 images", "110 images"), ("#steps", "noise", "picture")):
        (slider,) = all_of(browser, f"{section} input[type=range]")

        def visible(section: str = section) -> set[str]:
            return {c.text for c in all_of(browser, f"{section} .films figcaption") if c.is_displayed()}

        assert visible() == {last}
        slider.send_keys(Keys.HOME)
        assert soon(lambda first=first, visible=visible: visible() == {first})
        assert slider.get_attribute("aria-valuetext") == first


def test_grids_are_enlarged_by_click_and_by_key(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.keys import Keys

    open_page(browser, pages["full"])
    first = all_of(browser, ".gallery .enlarge")[0]
    (dialog,) = all_of(browser, "dialog")
    assert not dialog.is_displayed()
    first.click()
    assert soon(dialog.is_displayed) and dialog.text.startswith("vae")
    assert dialog.find_element("css selector", "img").size["width"] > first.size["width"]
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert soon(lambda: dialog.text.startswith("dcgan"))
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert soon(lambda: not dialog.is_displayed()) and browser.switch_to.active_element == first
    first.send_keys(Keys.ENTER)
    assert soon(dialog.is_displayed)
    corner = ActionBuilder(browser)
    corner.pointer_action.move_to_location(3, 3).click()  # on the backdrop
    corner.perform()
    assert soon(lambda: not dialog.is_displayed())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["full", "crashed"])
def test_every_text_can_be_read(browser: Any, pages: dict[str, Path], name: str, scheme: str) -> None:
    open_page(browser, pages[name], scheme=scheme)
    assert browser.execute_script(CONTRAST) == []


@pytest.mark.parametrize("name", ["full", "crashed", "empty", "judged", "evil"])
def test_narrow_screens_need_no_sideways_scrolling(browser: Any, pages: dict[str, Path], name: str) -> None:
    open_page(browser, pages[name], width=400)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400


def test_everything_is_there_without_javascript(browser: Any, pages: dict[str, Path]) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(browser, pages["full"])
        assert all_of(browser, "button") == [] and all_of(browser, "input") == []
        figures = all_of(browser, "main figure")
        assert len(figures) > 20 and all(figure.is_displayed() for figure in figures)
        assert all(section.is_displayed() for section in all_of(browser, "section"))
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_prints(browser: Any, pages: dict[str, Path]) -> None:
    open_page(browser, pages["full"])
    printed = base64.b64decode(browser.print_page())
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) >= 3
