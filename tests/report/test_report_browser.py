"""The page in a headless browser, off the network: it opens, draws, switches, computes, prints.

Each test leaves the page as it found it: opening one takes seconds.
"""

import base64
import os
import shutil
from itertools import accumulate

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import thinwire as tw
from thinwire.report import read_run, write_report

HOSTILE = """</script><script>document.title='pwned'</script><img src=x onerror="document.title='pwned'">"""
CHARTS = ["chart-accuracy", "chart-up", "chart-down", "chart-density", "chart-clients", "chart-link"]
LINK = {"up_mbps": 5.0, "down_mbps": 20.0, "latency_ms": 50.0}
REAL = 3  # place of the run that was really played
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking", "--window-size=1200,900",
)  # fmt: skip
PAPER = 680  # CSS pixels between the margins of A4: 180 mm


@pytest.fixture(scope="module")
def programs():
    """Paths of browser and driver; without one the tests are skipped, on CI they fail."""
    browsers = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    browser, driver = next(filter(None, browsers), None), shutil.which("chromedriver")
    if browser and driver:
        return browser, driver
    leave = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    return leave("chromium and chromedriver are not on PATH (Debian: apt-get install chromium chromium-driver)")


@pytest.fixture(scope="module")
def folders(make_run_at, make_rounds, tmp_path_factory):
    """A hostile run, one with clients of its own, a sparse one, and one that was played."""
    base = tmp_path_factory.mktemp("page")
    rows = make_rounds(2)
    rows[0]["dropped"] = [{"client": HOSTILE, "reason": HOSTILE}]
    rows[1]["seconds"][HOSTILE] = 1.0
    rows[1]["up_parts"][HOSTILE] = 1
    names = dict.fromkeys(("method", "data", "model", "uplink"), HOSTILE)
    hostile = make_run_at(base / "<img src=x>", rows=rows, config=f"# {HOSTILE}\n", **names)
    personal = make_run_at(base / "personal", rows=make_rounds(30, up_bpp=0.05), personal_accuracy=0.9)
    (personal / "clients.csv").write_text("client,test_samples,accuracy\n0,10,0.8\n1,10,1.0\n")
    sparse = make_run_at(base / "sparse", rows=make_rounds(5, up_bpp=30), model_density={"fc<b>": 0.25})
    local = {"data": "digits", "model": "mlp", "clients": 3, "rounds": 2, "workers": 1}
    return [hostile, personal, sparse, tw.run("fedavg", out=base / "real", link=LINK, **local).out]


@pytest.fixture(scope="module")
def browser(programs, folders, tmp_path_factory):
    """A browser that has opened the page."""
    program, driver_program = programs
    options = ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    driver = Chrome(options, ChromeService(driver_program))
    try:
        driver.get(write_report(folders, tmp_path_factory.mktemp("out") / "report.html").as_uri())
        yield driver
    finally:
        driver.quit()


def chart(browser, name, what):
    """A JavaScript expression about a chart, `c`."""
    return browser.execute_script(f"const c = document.getElementById('{name}'); return {what}")


def x_data(browser, name):
    return chart(browser, name, "c.data.map((line) => line.x)")


def choose(browser, **settings):
    """Type into the fields of the link, choose from its lists."""
    for name, value in settings.items():
        field = browser.find_element(By.NAME, name)
        if field.tag_name == "input":
            field.send_keys(Keys.CONTROL + "a" + Keys.NULL + str(value))
        else:  # the driver's own way of choosing fires no `input`, as a person's does
            script = (
                "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
            )
            browser.execute_script(script, field, value)


def computed(browser, run=REAL):
    """What the page says that a run costs."""
    fields = browser.find_elements(By.CSS_SELECTOR, f'output[data-run="{run}"]')
    return {field.get_attribute("data-of"): field.text for field in fields}


def test_the_page_opens_draws_and_asks_nothing(browser):
    assert [log for log in browser.get_log("browser") if log["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.title == "Comparison of 4 runs"
    assert browser.find_elements(By.TAG_NAME, "img") == []
    drawn = browser.execute_script("return charts().map((c) => [c.id, c.data.length, c.calcdata.length])")
    assert [name for name, _, _ in drawn] == CHARTS
    for name, lines, _ in drawn:
        assert chart(browser, name, "c.querySelectorAll('.main-svg .scatterlayer .trace').length") == lines
        assert chart(browser, name, "c.querySelector('.xtitle').textContent")


def test_a_key_hides_its_run_in_all_charts_and_shows_it_again(browser):
    def hidden():
        return browser.execute_script(
            "return charts().flatMap((c) => c.data.filter((l) => l.visible === false)).length"
        )

    lines = browser.execute_script("return charts().flatMap((c) => c.data.filter((l) => l.meta === 2)).length")
    assert lines == 6  # of accuracy, uplink and its bound, downlink, density, link
    key = browser.find_element(By.CSS_SELECTOR, 'button[data-run="2"]')
    key.click()
    assert hidden() == lines
    assert chart(browser, "chart-density", "c.querySelectorAll('.scatterlayer .trace').length") == 0
    pressed = browser.find_elements(By.CSS_SELECTOR, 'button[data-run="2"][aria-pressed="true"]')
    assert pressed == []
    key.click()
    assert hidden() == 0


@pytest.mark.parametrize("way", ["up", "down", "both"])
def test_accuracy_by_the_bytes_of_one_direction_or_both(browser, folders, way):
    browser.find_element(By.CSS_SELECTOR, f'input[value="{way}"]').find_element(By.XPATH, "..").click()
    rounds = read_run(folders[REAL]).rounds
    key = "total_bytes" if way == "both" else f"{way}_bytes"
    expected = [row[key] for row in rounds] if way == "both" else list(accumulate(row[key] for row in rounds))
    assert x_data(browser, "chart-accuracy")[REAL] == expected
    low, high = chart(browser, "chart-accuracy", "c.layout.xaxis.range.map((n) => 10 ** n)")
    assert low <= min(map(min, x_data(browser, "chart-accuracy")))
    assert high >= max(map(max, x_data(browser, "chart-accuracy")))
    title = chart(browser, "chart-accuracy", "c.querySelector('.xtitle').textContent")
    assert ("both directions" if way == "both" else f"bytes {way}") in title


def test_time_over_a_link_is_that_of_a_run_over_such_links(browser, folders):
    """All messages of this run's round are of one size, so that the mean client is the slowest."""
    before = computed(browser)
    choose(browser, up=5, down=20, latency=50)
    assert browser.find_element(By.NAME, "rate").get_property("value") == ""
    timed = [row["link_seconds"] for row in read_run(folders[REAL]).rounds]
    assert x_data(browser, "chart-link")[REAL] == pytest.approx(list(accumulate(timed)), rel=1e-12)
    assert computed(browser)["seconds"] == f"{sum(timed):.3g} s"
    choose(browser, rate=10, latency=20)
    assert computed(browser) == before


def test_energy_is_that_of_the_model_by_hand(browser, folders):
    run = read_run(folders[REAL])
    up, down = (8e-6 * sum(row[key] for row in run.rounds) for key in ("up_bytes", "down_bytes"))  # Mbit, all clients
    for radio, up_slope, down_slope, base in [("LTE", 438.39, 51.97, 1288.04), ("Wi-Fi", 283.17, 137.01, 132.86)]:
        choose(browser, up=2, down=8, radio=radio)
        joules = 1e-3 * (up_slope * up + base * up / 2 + down_slope * down + base * down / 8)
        shown = computed(browser)
        for name, expected in (("joules", joules / 3), ("roundJoules", joules / 6)):
            assert shown[name] == f"{expected:.3g} J"
    choose(browser, rate=10, radio="LTE")


def test_rate_and_latency_change_time_and_only_the_rate_energy(browser):
    before = computed(browser)
    choose(browser, latency=200)
    late = computed(browser)
    choose(browser, latency=20, rate=1)
    slow = computed(browser)
    choose(browser, rate=10)
    assert computed(browser) == before
    for name in ("seconds", "roundSeconds"):
        assert len({before[name], late[name], slow[name]}) == 3
    for name in ("joules", "roundJoules"):
        assert before[name] == late[name] != slow[name]


def test_a_rate_that_is_none_changes_nothing(browser):
    before = computed(browser)
    choose(browser, up=0)
    assert computed(browser) == before
    choose(browser, rate=10)


def test_a_phone_scrolls_one_way_only(browser):
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        browser.set_script_timeout(20)
        browser.execute_async_script(
            "const done = arguments[0];"
            "const wait = () => charts().every((c) => c._fullLayout.width <= 390) ? done() : setTimeout(wait, 50);"
            "wait()"
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        for name in CHARTS:
            edges = "[...c.querySelectorAll('.main-svg, .xtitle')].map((e) => e.getBoundingClientRect())"
            assert chart(browser, name, f"{edges}.every((r) => r.left >= 0 && r.right <= 390)")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_paper_cuts_no_chart(browser):
    browser.execute_script(
        "const width = (c) => [c.closest('.pair') ? 2 : 1, c.querySelector('.main-svg').width.baseVal.value];"
        "addEventListener('beforeprint', () => { window.printed = charts().map(width); });"
    )
    size = {"paperWidth": 8.27, "paperHeight": 11.69, "preferCSSPageSize": True}
    printed = browser.execute_cdp_cmd("Page.printToPDF", size)
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    widths = browser.execute_script("return window.printed")
    assert len(widths) == len(CHARTS)
    for side_by_side, width in widths:
        assert 0 < width <= PAPER / side_by_side - 16 * (side_by_side - 1)
