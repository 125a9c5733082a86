"""The QC page in a real browser, from a folder and over http: drawn, moved, quiet, and nothing leaves the machine.

Needs Chromium (`apt-get install chromium-headless-shell`); its WebGL is computed by the CPU.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading

import numpy as np
import pytest
import torch
from chromium import Chromium, program

from hftn_sr import api
from hftn_sr.inference.uncertainty import FILE, Calibration, save_head
from hftn_sr.networks.uncertainty import UncertaintyHead
from hftn_sr.report import QcCase, write_report
from hftn_sr.volumes.files import sha256_of
from hftn_sr.volumes.simulation import degrade
from phantoms import phantom, write_volume

MISSING = "no Chromium is installed (apt-get install chromium-headless-shell)"
pytestmark = pytest.mark.skipif(program() is None or os.name != "posix", reason=MISSING)

EVIL = "<img src=x onerror=\"document.title='broken into'\">"
PHONE, DESKTOP = (360, 740), (1280, 900)
READY = "document.getElementById('viewer').dataset.ready"
CANVASES = [f"#viewer_{role}" for role in ("target", "reference", "result")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, weights):
    """A page of two cases and one that failed; the second case's name is HTML, the first has an expected error."""
    base = tmp_path_factory.mktemp("page")
    cases = []
    own = base / "own" / "tiny.safetensors"
    own.parent.mkdir()
    shutil.copy(weights[2], own)
    calibration = Calibration("tiny x2", sha256_of(own), "kspace", 1, 2.0, 2.3, 0.0, 9.0, ("one",))
    head = UncertaintyHead()
    torch.nn.init.normal_(head.linear.weight, std=0.05)
    own.with_name(FILE).write_bytes(save_head(head, [calibration], {}))
    for number, name in enumerate(("patient", EVIL)):
        truth, reference = phantom((96, 104, 9)), phantom((96, 104, 9), kind="reference")
        low = write_volume(base / f"{number}" / "target.nii.gz", degrade(truth, 2, 2))
        other = write_volume(base / f"{number}" / "reference.nii.gz", reference)
        output = base / "results" / f"{number} #?% ü" / "target_sr.nii.gz"
        api.super_resolve(low, other, output, scale=2, model=str(own), uncertainty=number == 0)
        cases.append(QcCase(name, output, low, other, truth=write_volume(base / f"{number}" / "truth.nii.gz", truth)))
    failed = QcCase("third", base / "results" / "third" / "target_sr.nii.gz", status="failed", message=f"{EVIL}: empty file.")
    write_report(base / "results", [*cases, failed])
    return base / "results"


@pytest.fixture(scope="module")
def served(folder):
    """Address of the folder over http."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/report.html"
        server.shutdown()
        thread.join()


@pytest.fixture
def browser(tmp_path):
    with Chromium(tmp_path / "profile") as browser:
        browser.screen(*DESKTOP)
        yield browser


def seen(browser):
    """The three pictures of the viewer as they are on the screen, without the crosshair's last pixel or two."""
    return [browser.picture(canvas) for canvas in CANVASES]


def drawn(picture):
    """Whether there is a head: many grey levels and a good share of pixels that are not black."""
    return len(np.unique((picture[..., 0] * 255).astype(int))) > 30 and (picture.max(axis=2) > 0.15).mean() > 0.1


def changed(before, after):
    return [bool(np.abs(one - two).mean() > 1e-3) for one, two in zip(before, after, strict=True)]


@pytest.mark.parametrize("way", ["folder", "http"])
def test_the_viewer_opens_draws_and_follows_keyboard_and_mouse(browser, folder, served, way):
    address = (folder / "report.html").as_uri() if way == "folder" else served
    browser.open(address)
    browser.until(
        "[...document.images].filter((image) => !image.hidden).slice(0, 5).every((image) => image.complete && image.naturalWidth > 0)"
    )

    # The slider of the pictures.
    before = browser.picture(".panels")
    browser.value("document.querySelector('input.slice').focus()")
    start = browser.value("document.querySelector('.slices output').value")
    browser.key("ArrowRight", 39)
    browser.until(f"document.querySelector('.slices output').value !== '{start}' && document.images[0].complete")
    assert np.abs(browser.picture(".panels") - before).mean() > 1e-3
    index = browser.value("document.querySelector('.slices output').value")
    assert browser.value("document.images[0].alt").startswith(f"Slice {index} of patient")

    # The viewer, opened by keyboard.
    browser.value("document.querySelector('button.open').focus()")
    browser.key("Enter", 13)
    browser.until(f"{READY} || document.getElementById('viewer_state').textContent.startsWith('The viewer')")
    assert browser.value("document.getElementById('viewer_state').textContent") == ""
    assert browser.value("document.activeElement.id") == "viewer_slice"
    first = seen(browser)
    assert [drawn(picture) for picture in first] == [True, True, True]
    assert changed([first[0]], [first[1]]) == [True]  # another contrast
    index = browser.value("document.getElementById('viewer_index').value")
    browser.key("ArrowRight", 39)
    assert browser.value("document.getElementById('viewer_index').value") != index
    second = seen(browser)
    assert changed(first, second) == [True, True, True]

    # A click in one picture moves the crosshair in all three; the plane is another one then.
    browser.click("#viewer_target", 0.35, 0.4)
    third = seen(browser)
    assert changed(second, third) == [True, True, True]
    browser.value("document.getElementById('viewer_plane').value = 'coronal'")
    browser.value("document.getElementById('viewer_plane').dispatchEvent(new Event('change'))")
    assert browser.value("document.getElementById('viewer_slice').max") != "8"
    assert changed(third, seen(browser)) == [True, True, True]

    # Closed by Escape, the focus is where it was; the next case opens in the same viewer.
    browser.key("Escape", 27)
    assert browser.value("document.getElementById('viewer').open") is False
    assert browser.value("document.activeElement.className") == "open"
    browser.click(".case:nth-of-type(3) button.open")
    browser.until(READY)
    assert browser.value("document.getElementById('viewer_name').textContent") == EVIL
    assert [drawn(picture) for picture in seen(browser)] == [True, True, True]

    assert browser.complaints == []
    assert browser.value("document.title") == "QC: 3 cases"
    start = address.rpartition("/")[0]
    assert [url[:80] for url in browser.requests if not url.startswith((start, "data:", "blob:"))] == []


@pytest.mark.parametrize("screen", [DESKTOP, PHONE])
def test_the_expected_error_is_laid_over_the_result_and_faded_by_keyboard(browser, folder, screen):
    browser.screen(*screen)
    browser.open((folder / "report.html").as_uri())
    result = ".panels figure:nth-of-type(2) .panel"
    browser.until("document.querySelector('.panels img').complete")
    plain = browser.picture(result)
    browser.value("document.querySelector('input.overlay').focus()")
    browser.key(" ", 32)
    browser.until("document.querySelector('img.error').complete && document.querySelector('img.error').naturalWidth > 0")
    laid = browser.picture(result)
    assert np.abs(laid - plain).mean() > 1e-2
    assert browser.value("document.querySelector('.heat').getBoundingClientRect().width") > 0
    browser.value("document.querySelector('input.fade').focus()")
    for _ in range(12):
        browser.key("ArrowLeft", 37)
    assert browser.value("document.querySelector('input.fade').getAttribute('aria-describedby')")
    assert browser.value("document.querySelector('input.fade + output').value") == "0 %"
    assert np.abs(browser.picture(result) - plain).mean() < 1e-3
    assert browser.value("document.querySelectorAll('input.overlay').length") == 1  # the other case has no such map
    assert browser.complaints == []


def test_a_phone_sees_all_of_it_without_scrolling_sideways(browser, folder):
    browser.screen(*PHONE)
    browser.open((folder / "report.html").as_uri())
    assert browser.value("document.documentElement.scrollWidth") == PHONE[0]
    browser.click("button.open")
    browser.until(READY)
    widest = "Math.max(...[...document.querySelectorAll('dialog *')].map((e) => e.getBoundingClientRect().right))"
    assert browser.value(widest) <= PHONE[0]
    assert [drawn(picture) for picture in seen(browser)] == [True, True, True]


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_in_dark(browser, folder, dark):
    browser.screen(*DESKTOP, dark=dark)
    browser.open((folder / "report.html").as_uri())
    ground = browser.picture()[5, 5].mean()
    assert ground < 0.2 if dark else ground > 0.9
    for selector in ("body", ".quiet", ".small", "a", "td.state-failed", ".failed", "button"):
        assert contrast(browser, selector) >= 4.5, selector


def contrast(browser, selector):
    """WCAG 2.1 contrast ratio of an element's text and the ground that it lies on."""
    colours = browser.value(
        f"(() => {{ let e = document.querySelector({selector!r}); const ink = getComputedStyle(e).color;"
        " while (getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;"
        " return [ink, getComputedStyle(e).backgroundColor].map((c) => c.match(/[0-9.]+/g).slice(0, 3).map(Number)); })()"
    )
    light, dark = sorted((luminance(np.array(colour) / 255) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(browser, folder):
    browser.open((folder / "report.html").as_uri())
    reached, outlines = [], set()
    for _ in range(15):
        browser.key("Tab", 9)
        reached.append(browser.value("document.activeElement.className || document.activeElement.tagName"))
        outlines.add(browser.value("getComputedStyle(document.activeElement).outlineStyle"))
    assert reached == ["A", "A", "A", "scroll", "A", "A", "A", "slice", "overlay", "open", "scroll", "slice", "open", "scroll", "A"]
    assert "none" not in outlines - {browser.value("getComputedStyle(document.body).outlineStyle")}


def test_a_missing_file_is_said_in_the_viewer(browser, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for script in copy.glob("report_files/*/volumes.js"):
        script.unlink()
    browser.open((copy / "report.html").as_uri())
    browser.click("button.open")
    browser.until("document.getElementById('viewer_state').textContent.includes('volumes.js is missing or cannot be read')")
