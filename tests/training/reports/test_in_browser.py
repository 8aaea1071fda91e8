"""Reports in a real browser, on a telephone, a tablet and a desk: nothing cut, nothing too small.

Chromium is started once. It opens a page of frames, each of which holds a copy of a report with
`measure.js` in it; what they measured is read off the page around them.
"""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.training.reports.every_section import write_compared, write_ranker, write_retrieval

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
WIDTHS = (390, 768, 1280)
PAGES = ("trained", "retrieval", "ranker", "compared", "broken")
BROKEN = """<!doctype html><html lang="en"><head></head><body>
<div style="width: 9000px">wide</div><p style="font-size: 9px">small</p>
<p style="overflow: hidden; white-space: nowrap; width: 50px">a text that does not fit</p>
<svg viewBox="0 0 2000 20" style="width: 100%"><text y="10" font-size="10">shrunk</text></svg>
<svg viewBox="0 0 9 9"><path d="wrong"/></svg><script>console.error("said")</script>
</body></html>"""
COLLECTOR = """<!doctype html><html lang="en"><body><script>
const found = [];
addEventListener("message", (event) => {
  found.push(event.data);
  document.querySelector("pre").textContent = JSON.stringify(found);
});
</script><pre></pre>%s</body></html>"""


@dataclass(frozen=True)
class Browsed:
    """What each page looked like at each width, and what the browser itself had to say."""

    pages: dict[tuple[str, int], dict[str, list[str]]]
    console: list[str]


@pytest.fixture(scope="module")
def browsed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Browsed:
    folder = tmp_path_factory.mktemp("browser")
    write_retrieval(folder / "retrieval.html")
    write_ranker(folder / "ranker.html")
    write_compared(folder / "compared.html")
    (folder / "broken.html").write_text(BROKEN)
    shutil.copy(trained.parents[1] / "report.html", folder / "trained.html")
    script = Path(__file__).with_name("measure.js").read_text()
    for page in PAGES:
        path = folder / f"{page}.html"
        path.write_text(path.read_text().replace("<head>", f"<head><script>{script}</script>", 1))
    frames = "".join(
        f'<iframe name="{page}" src="{page}.html" style="width: {width}px; border: 0"></iframe>'
        for page in PAGES
        for width in WIDTHS
    )
    (folder / "collector.html").write_text(COLLECTOR % frames)
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += ["--dump-dom", "--virtual-time-budget=60000", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
    done = subprocess.run(
        [*command, (folder / "collector.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, flags=re.S)
    assert found is not None, done.stderr
    pages = json.loads(html.unescape(found[1]) or "[]")
    return Browsed(
        {(page["page"], page["width"]): page for page in pages},
        [line for line in done.stderr.splitlines() if "CONSOLE" in line],
    )


def test_every_page_was_measured_at_every_width(browsed: Browsed) -> None:
    assert set(browsed.pages) == {(page, width) for page in PAGES for width in WIDTHS}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES[:-1])
def test_a_report_is_readable(browsed: Browsed, page: str, width: int) -> None:
    found = browsed.pages[page, width]
    assert found["cut"] == []
    assert found["small"] == []
    assert found["problems"] == []


@pytest.mark.parametrize("page", PAGES[:-1])
def test_a_page_of_any_width_shows_every_chart_once(browsed: Browsed, page: str) -> None:
    for width in WIDTHS:
        found = browsed.pages[page, width]
        assert found["charts"] == found["figures"] >= 5


def test_the_browser_has_nothing_to_say_of_reports(browsed: Browsed) -> None:
    said = [line for line in browsed.console if "broken.html" not in line]
    assert said == []
    assert len(browsed.console) == len(WIDTHS)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_wrong_with_a_page_is_seen(browsed: Browsed, width: int) -> None:
    """The measure measures: every fault of a page made for it is found."""
    found = browsed.pages["broken", width]
    assert found["problems"] == ["said"]
    cut, small = " ".join(found["cut"]), " ".join(found["small"])
    assert 'HTML "' in cut
    assert "a text that does not fit: beyond its P" in cut
    assert "small: 9.0 px" in small
    assert "shrunk: " in small
