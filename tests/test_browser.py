"""The page in a real browser: no message, no request, no sideways scroll, dark and light, figures visible."""

from pathlib import Path

import pytest

import browser
import synthetic
from synthetic import Design
from welltuned.audit import audit, files
from welltuned.report import build

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no chromium: apt-get install chromium (.ci/run does)")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the page of a small study."""
    results, declaration = synthetic.study(Design(noise=0.004))
    return build(results, declaration, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Return a running browser."""
    with browser.Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (1100, "dark"), (360, "light"), (360, "dark")])
def test_the_page_says_nothing_asks_for_nothing_and_does_not_scroll_sideways(page, shown, width, scheme):
    seen = shown.show(page, width, 900, scheme)
    assert seen.messages == [] and seen.requests == [page.resolve().as_uri()]
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    sizes = shown.evaluate("[...document.querySelectorAll('figure svg')].map(e => e.getBoundingClientRect().height)")
    assert len(sizes) >= 9 and min(sizes) > 60


@pytest.mark.parametrize("width", [1100, 360])
def test_the_page_of_an_audit_says_nothing_asks_for_nothing_and_does_not_scroll_sideways(shown, tmp_path, width):
    study = Path(__file__).parent / "recorded" / "batch_by_method.jsonl.gz"
    made = files.write(audit(study), tmp_path)
    seen = shown.show(made, width)
    assert seen.messages == [] and seen.requests == [made.resolve().as_uri()]
    assert shown.evaluate("document.documentElement.scrollWidth") <= width


def test_what_is_folded_on_the_screen_is_printed(page, shown):
    shown.show(page)
    visible = "document.querySelector('details.printed table').checkVisibility()"
    assert shown.evaluate(visible) is False
    shown.call("Emulation.setEmulatedMedia", media="print")
    assert shown.evaluate(visible) is True
    shown.call("Emulation.setEmulatedMedia", media="")


def test_a_dark_page_is_dark_and_its_figures_are_legible_on_it(page, shown):
    brightness = "c => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
    found = {}
    for scheme in ("light", "dark"):
        shown.show(page, 1100, 900, scheme)
        ground = shown.evaluate(f"({brightness})(getComputedStyle(document.body).backgroundColor)")
        ink = shown.evaluate(f"({brightness})(getComputedStyle(document.querySelector('figure svg text')).fill)")
        found[scheme] = (ground, ink)
    assert found["light"][0] > 700 and found["light"][1] < 150
    assert found["dark"][0] < 120 and found["dark"][1] > 600


def test_the_browser_test_sees_a_planted_request_message_and_overflow(shown, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<meta http-equiv=Content-Security-Policy content=\"style-src 'none'\"><meta name=viewport "
        'content="width=device-width"><img src=missing.png><p style="color:red">x</p><pre>' + "x" * 400
    )
    seen = shown.show(bad, 360)
    assert len(seen.requests) == 2 and seen.messages
    assert shown.evaluate("document.documentElement.scrollWidth") > 360
