"""The page in a real browser, against the service in this process: no socket is opened."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="the page is looked at with Playwright: pip install playwright")

from PIL import Image
from playwright.sync_api import Browser, Page, Route, sync_playwright
from pycocotools.coco import COCO

from solov2.formats import encode_rle
from solov2.serve.models import Models
from solov2.structures import Category, Instances
from solov2.visualize import instance_colors
from tests.serve.conftest import EXAMPLES, PATIENCE, Client, halves, picture_bytes

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ORIGIN = "http://localhost"
FILES = Path(__file__).parents[2] / "src/solov2/serve/page"
WIDE, PHONE = {"width": 1200, "height": 800}, {"width": 390, "height": 844}
TEXT_CONTRAST = 4.5  # WCAG 2.2, 1.4.3
LEAST_TARGET = 24  # CSS pixels; WCAG 2.2, 2.5.8

CONTRASTS = """() => {
  const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1})
    .getContext('2d', {willReadFrequently: true});
  const read = (css) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = css;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const color = read(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, ground(element.parentElement));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const texts = [...document.querySelectorAll('body *')].filter((element) =>
    element.checkVisibility({opacityProperty: true}) && !element.closest('.unseen, [aria-hidden], noscript') &&
    [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return texts.map((element) => {
    const below = ground(element);
    const [one, other] = [luminance(over(read(getComputedStyle(element).color), below)), luminance(below)];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return [element.textContent.trim().slice(0, 40), ratio];
  });
}"""

NAMES = """() => [...document.querySelectorAll('button, a, input, select, [tabindex="0"], img')]
  .filter((element) => element.checkVisibility())
  .map((element) => [
    element.outerHTML.slice(0, 90),
    element.tagName === 'IMG' ? (element.hasAttribute('alt') ? 'alt' : '') :
      element.getAttribute('aria-label') || element.labels?.[0]?.textContent.trim() ||
      (element.tagName === 'SELECT' ? '' : element.textContent.trim()),
  ])"""


class Visit:
    """One tab on the page.

    Attributes:
        posts: addresses of the requests for a prediction, as path and query.
        bodies: what they carried.
        answers: takes the place of the service for addresses beginning so.
        faults: what the browser complained about.
    """

    def __init__(self, page: Page, client: Client) -> None:
        self.page = page
        self.client = client
        self.posts: list[str] = []
        self.bodies: list[bytes] = []
        self.answers: dict[str, Callable[[Route], object]] = {}
        self.faults: list[str] = []
        page.route("**/*", self._answer)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", lambda message: self._hear(message.type, message.text))

    def _answer(self, route: Route) -> None:
        request = route.request
        assert request.url.startswith(ORIGIN + "/"), f"the page asked {request.url}"
        parts = urlsplit(request.url)
        address = parts.path + (f"?{parts.query}" if parts.query else "")
        body = request.post_data_buffer
        if request.method == "POST":
            self.posts.append(address)
            self.bodies.append(body or b"")
        for start, answer in self.answers.items():
            if address.startswith(start):
                answer(route)
                return
        headers = {name: text for name, text in request.headers.items() if name in ("content-type", "x-api-key")}
        got = self.client.start(request.method, address, content=body, headers=headers).result(PATIENCE)
        route.fulfill(status=got.status_code, headers=dict(got.headers), body=got.content)

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):  # expected refusals
            self.faults.append(text)

    def choose(self, name: str, content: bytes, media: str = "image/png") -> None:
        self.page.set_input_files("#file", {"name": name, "mimeType": media, "buffer": content})

    def see(self, name: str, content: bytes, media: str = "image/png") -> None:
        """Chooses a picture and waits for its objects."""
        with self.page.expect_request("**/v1/predict*"):  # from then on the page no longer shows what it showed before
            self.choose(name, content, media)
        self.wait()

    def wait(self, state: str = "done") -> None:
        self.page.wait_for_selector(f'body[data-state="{state}"]')
        self.settle()

    def settle(self) -> None:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def notice(self) -> str:
        return self.page.locator("#notice:not([hidden])").inner_text()

    def set_slider(self, name: str, value: float) -> None:
        self.page.locator(f"#{name}").evaluate(
            "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
        )
        self.settle()

    def canvas(self, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """What is on a canvas, (H, W, 4)."""
        script = "(canvas) => canvas.toDataURL('image/png').split(',')[1]"
        return np.array(Image.open(io.BytesIO(base64.b64decode(self.page.locator(f"#{name}").evaluate(script)))))

    def painted(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return self.canvas("fills")[:, :, 3] > 0

    def download(self, button: str) -> tuple[str, bytes]:
        with self.page.expect_download() as caught:
            self.page.click(f"#{button}")
        return caught.value.suggested_filename, Path(caught.value.path()).read_bytes()


@pytest.fixture(scope="module")  # not the session's: Playwright keeps an event loop running for as long as it lives
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Browser, make_client: Callable[..., Client]) -> Iterator[Callable[..., Visit]]:
    """Opens the page; by default of a service that finds the left half (0.9) and the right half (0.4)."""
    visits: list[Visit] = []

    def _visit(client: Client | None = None, **context: Any) -> Visit:
        opened = Visit(browser.new_context(**{"viewport": WIDE, **context}).new_page(), client or make_client(halves()))
        opened.page.set_default_timeout(PATIENCE * 1000)
        visits.append(opened)
        opened.page.goto(f"{ORIGIN}/", wait_until="networkidle")
        return opened

    yield _visit
    faults = [fault for opened in visits for fault in opened.faults]
    for opened in visits:
        opened.page.unroute_all(behavior="ignoreErrors")
        opened.page.context.close()
    assert faults == []


def example(name: str) -> tuple[str, bytes, str]:
    return name, (EXAMPLES / name).read_bytes(), "image/jpeg"


def fills_of(found: Instances, shown: list[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(H, W, 4): each pixel in the colour of the smallest object it belongs to."""
    colors = instance_colors(len(found))
    fills = np.zeros((*found.original_hw, 4), np.uint8)
    for row in sorted(shown, key=lambda row: -found.areas[row]):
        fills[found.masks[row]] = (*colors[row], 255)
    return fills


def test_the_masks_on_the_screen_are_the_predictors(
    visit: Callable[..., Visit], client: Client, models: Models
) -> None:
    predictor = models.default.predictor
    found = predictor.predict(EXAMPLES / "street.jpg", 0)
    own = predictor.score_threshold
    seen = visit(client)
    seen.see(*example("street.jpg"))
    page = seen.page
    shown = np.flatnonzero(found.scores >= own).tolist()
    assert len(shown) > 3
    assert page.inner_text("#count") == f"{len(shown)} objects"
    assert page.locator("#threshold").input_value() == f"{own:g}"
    np.testing.assert_array_equal(seen.canvas("fills"), fills_of(found, shown))
    assert page.locator(".row:visible").count() == len(shown)
    assert "7 objects found: 2 bus, 4 car, 1 person." in page.inner_text("#status")
    assert "solov2" in page.inner_text("#facts")

    for threshold in (0.9, 0, 1, 0.6):  # the slider never asks the service again
        seen.set_slider("threshold", threshold)
        shown = np.flatnonzero(found.scores >= threshold).tolist()
        np.testing.assert_array_equal(seen.canvas("fills"), fills_of(found, shown))
        assert page.locator(".row").evaluate_all(
            "rows => rows.filter((row) => !row.closest('[hidden]')).length"
        ) == len(shown)
    assert page.inner_text("#threshold-value") == "0.60"
    page.click("#own")
    assert page.inner_text("#threshold-value") == f"{own:.2f}"
    assert seen.posts == ["/v1/predict?threshold=0&output=rle&model=solov2"]


def test_a_turned_photo_is_upright(visit: Callable[..., Visit], client: Client, models: Models, tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    with Image.open(EXAMPLES / "dog.jpg") as dog:
        dog.rotate(90, expand=True).save(path, exif=exif, quality=95)
    found = models.default.predictor.predict(path)
    assert found.original_hw == (448, 298)
    seen = visit(client)
    seen.see("turned.jpg", path.read_bytes(), "image/jpeg")
    assert seen.bodies == [path.read_bytes()]
    assert "298 × 448" in seen.page.inner_text("#about")
    np.testing.assert_array_equal(seen.painted(), found.masks.any(axis=0))


@pytest.fixture
def two_models(make_client: Callable[..., Client]) -> Client:
    """A service with the names and classes of the shipped models that answers at once."""
    loaded = []
    for name, classes in (("solov2", ("person", "car")), ("nuclei", ("nucleus", "other"))):
        (model,) = halves(name=name).values()
        model.predictor.categories = tuple(Category(number, title) for number, title in enumerate(classes, 1))
        loaded.append(model)
    return make_client(Models(loaded))


def test_an_example_brings_its_model_and_says_whose_it_is(visit: Callable[..., Visit], two_models: Client) -> None:
    seen = visit(two_models)
    assert seen.page.locator(".example").all_inner_texts() == ["Street", "Riders", "Baseball", "Cell nuclei"]
    seen.page.get_by_role("button", name="Cell nuclei").click()
    seen.wait()
    assert seen.posts == ["/v1/predict?threshold=0&output=rle&model=nuclei"]
    assert "CC0" in seen.page.inner_text("#credit")
    seen.page.click("#home")
    seen.page.get_by_role("button", name="Street").click()
    seen.wait()
    links = seen.page.locator("#credit a").evaluate_all("links => links.map((link) => link.href)")
    assert links == ["https://www.flickr.com/photo.gne?id=8195678412", "https://creativecommons.org/licenses/by/2.0/"]
    seen.page.select_option("#model", "nuclei")
    seen.wait()
    assert [post.rpartition("=")[2] for post in seen.posts] == ["nuclei", "solov2", "nuclei"]


def test_objects_are_shown_and_hidden_by_mouse_and_keyboard(visit: Callable[..., Visit]) -> None:
    seen = visit()
    page = seen.page
    seen.see("two.png", picture_bytes(40, 30))
    seen.set_slider("threshold", 0)
    assert seen.painted().all()
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    left = {"x": stage["width"] / 2 - 40, "y": stage["height"] / 2}
    row = page.get_by_role("button", name="left, score 0.90, 600 pixels")

    before = seen.canvas("lines")
    page.hover("#stage", position=left)
    seen.settle()
    assert "lit" in str(row.get_attribute("class"))
    assert (seen.canvas("lines") != before).any()
    page.click("#stage", position=left)
    seen.settle()
    assert row.get_attribute("aria-pressed") == "false"
    assert not seen.painted()[:, :20].any()
    assert seen.painted()[:, 20:].all()
    page.click("#stage", position=left)  # what is hidden can be found again
    seen.settle()
    assert row.get_attribute("aria-pressed") == "true"

    page.locator(".class-row").first.focus()
    page.keyboard.press("ArrowDown")
    assert row.evaluate("row => row === document.activeElement")
    page.keyboard.press("Space")
    seen.settle()
    assert not seen.painted()[:, :20].any()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")  # the whole class: shown again
    seen.settle()
    assert seen.painted().all()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "right, score 0.40, 600 pixels"
    assert page.locator("#groups button[tabindex='0']").count() == 1


def test_what_is_drawn_follows_the_switches(visit: Callable[..., Visit]) -> None:
    seen = visit()
    page = seen.page
    seen.see("two.png", picture_bytes(40, 30))
    seen.set_slider("threshold", 0)
    for name in ("boxes", "labels", "outlines", "boxes"):
        before = seen.canvas("lines")
        page.click(f"#{name}")
        seen.settle()
        assert (seen.canvas("lines") != before).any(), name
    assert not seen.canvas("lines").any()  # no outlines, labels or boxes
    seen.set_slider("opacity", 80)
    assert page.locator("#fills").evaluate("canvas => canvas.style.opacity") == "0.8"
    page.click("#original")
    assert not page.locator("#fills").is_visible()
    page.click("#original")
    assert page.locator("#fills").is_visible()
    dots = "dots => dots.map((dot) => dot.style.backgroundColor)"
    by_object = page.locator(".row .dot").evaluate_all(dots)
    page.click("#by-class")
    assert page.locator(".row .dot").evaluate_all(dots) == by_object  # one object each: the same two colours
    assert len(set(by_object)) == 2


def test_zoom_and_pan(visit: Callable[..., Visit]) -> None:
    seen = visit()
    page = seen.page
    seen.see("two.png", picture_bytes(400, 300))

    def place() -> list[float]:
        seen.settle()
        matrix = page.locator("#sheet").evaluate("sheet => getComputedStyle(sheet).transform")
        return [float(number) for number in re.findall(r"-?[\d.]+(?:e-?\d+)?", matrix)]

    whole = place()
    page.click("#zoom-in")
    assert place()[0] == pytest.approx(1.4 * whole[0], rel=1e-3)
    box = page.locator("#stage").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 300)
    before = place()
    page.mouse.down()
    page.mouse.move(box["x"] + 260, box["y"] + 280, steps=3)
    page.mouse.up()
    after = place()
    assert (after[4] - before[4], after[5] - before[5]) == pytest.approx((-40, -20), abs=1)
    assert page.locator(".row[aria-pressed='false']").count() == 0  # a drag is no click
    page.mouse.wheel(0, -100)
    assert place()[0] > after[0]
    page.focus("#stage")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("-")
    page.keyboard.press("0")
    assert place() == whole
    page.mouse.wheel(0, 500)
    assert place() == whole  # never smaller than the stage


def test_the_png_is_the_picture_with_its_masks(visit: Callable[..., Visit]) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 41, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    seen = visit()
    seen.see("my photo.v2.png", stream.getvalue())
    for name in ("outlines", "labels"):
        seen.page.click(f"#{name}")
    seen.set_slider("opacity", 100)
    name, content = seen.download("save-png")
    assert name == "my photo.v2_solov2.png"
    drawn = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    expected = pixels.copy()
    expected[:, :20] = instance_colors(1)[0]
    np.testing.assert_array_equal(drawn, expected)
    seen.set_slider("opacity", 50)
    seen.page.click("#outlines")
    _, content = seen.download("save-png")
    drawn = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    mixed = (pixels[10:20, 5:15].astype(float) + instance_colors(1)[0]) / 2
    np.testing.assert_allclose(drawn[10:20, 5:15], mixed, atol=2)
    np.testing.assert_array_equal(drawn[:, 25:], pixels[:, 25:])
    assert (np.abs(drawn[10:20, 20].astype(float) - pixels[10:20, 20]) > 2).any()  # the outline


def test_the_json_is_a_coco_data_set(
    visit: Callable[..., Visit], client: Client, models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = models.default.predictor.predict(EXAMPLES / "horses.jpg", 0.5)
    seen = visit(client)
    seen.see(*example("horses.jpg"))
    seen.set_slider("threshold", 0.5)
    seen.page.locator(".row:visible").first.click()  # hidden objects are left out
    name, content = seen.download("save-json")
    assert name == "horses_solov2.json"
    (tmp_path / name).write_bytes(content)
    coco = COCO(tmp_path / name)
    assert coco.loadImgs([1]) == [{"id": 1, "file_name": "horses.jpg", "width": 448, "height": 253}]
    records = coco.loadAnns(coco.getAnnIds())
    assert len(records) == len(found) - 1 > 0
    for record in records:
        (row,) = np.flatnonzero(found.scores == np.float32(record["score"]))
        np.testing.assert_array_equal(coco.annToMask(record), found.masks[row])
        x0, y0, x1, y1 = found.boxes[row]
        assert record["bbox"] == [x0, y0, x1 - x0, y1 - y0]
        assert record["area"] == found.areas[row]
        assert coco.loadCats([record["category_id"]])[0]["name"] == found.class_names[row]


def test_a_file_that_is_no_picture_is_refused_kindly(visit: Callable[..., Visit]) -> None:
    seen = visit()
    for name, media, content, words in (
        ("notes.txt", "text/plain", b"no picture", "does not look like a picture"),
        ("IMG_1.HEIC", "image/heic", b"\0\0\0\x18ftypheic", "HEIC"),
        ("scan.tiff", "image/tiff", b"II*\0", "TIFF"),
        ("letter.pdf", "application/pdf", b"%PDF-1.7", "PDF"),
        ("clip.mp4", "video/mp4", b"\0\0\0\x18ftypmp42", "video"),
        ("broken.png", "image/png", picture_bytes()[:40], "cannot be opened"),
        ("empty.png", "image/png", b"", "empty"),
    ):
        seen.choose(name, content, media)
        assert words in seen.notice()
        seen.page.keyboard.press("Escape")
        assert not seen.page.locator("#notice").is_visible()
    assert seen.posts == []
    assert seen.page.locator("#welcome").is_visible()


def test_a_refusal_of_the_service_is_said_kindly(visit: Callable[..., Visit]) -> None:
    seen = visit()
    for status, headers, words, again in (
        (503, {"Retry-After": "7"}, "busy", True),
        (504, {}, "too long", True),
        (413, {}, "Too large, really.", False),
        (415, {}, "format", False),
        (422, {}, "could not use", False),
        (500, {}, "went wrong", True),
    ):
        refusal = {"status": status, "headers": headers, "json": {"error": "too large, really"}}
        seen.answers["/v1/predict"] = lambda route, refusal=refusal: route.fulfill(**refusal)
        seen.choose("two.png", picture_bytes())
        text = seen.notice()
        assert words in text
        assert ("in 7 seconds" in text) == (status == 503)
        assert seen.page.locator("#picture").is_visible()
        assert seen.page.get_by_role("button", name="Try again").is_visible() == again
        seen.answers.clear()
        if again:
            seen.page.get_by_role("button", name="Try again").click()
            seen.wait()
            assert seen.page.inner_text("#count") == "1 object"
            assert not seen.page.locator("#notice").is_visible()
        else:
            seen.page.click("#home")


@pytest.mark.parametrize(("online", "words"), [(True, "does not answer"), (False, "offline")])
def test_no_way_to_the_service(visit: Callable[..., Visit], online: bool, words: str) -> None:
    seen = visit()
    seen.page.context.set_offline(not online)
    seen.answers["/v1/predict"] = lambda route: route.abort("connectionrefused")
    seen.choose("two.png", picture_bytes())
    assert words in seen.notice()
    seen.answers.clear()
    seen.page.context.set_offline(False)
    seen.page.click("#notice-again")
    seen.wait()


def test_a_service_with_a_key_is_asked_with_it(visit: Callable[..., Visit], make_client: Callable[..., Client]) -> None:
    seen = visit(make_client(halves(), api_key="open sesame"))
    assert "asks for a key" in seen.notice()
    for key in ("wrong", "open sesame"):
        seen.page.fill("#key", key)
        seen.page.keyboard.press("Enter")
        seen.page.wait_for_load_state("networkidle")
    seen.page.wait_for_selector("#notice", state="hidden")
    seen.see("two.png", picture_bytes())
    assert seen.page.inner_text("#count") == "1 object"


def test_nothing_found_is_said(visit: Callable[..., Visit]) -> None:
    seen = visit()
    answer = {
        "model": "halves",
        "image": {"width": 6, "height": 4},
        "threshold": 0.0,
        "instances": [],
        "timing": {"decode_ms": 1, "queue_ms": 0, "predict_ms": 1500, "encode_ms": 1, "total_ms": 1502},
    }
    seen.answers["/v1/predict"] = lambda route: route.fulfill(json=answer)
    seen.see("two.png", picture_bytes())
    assert seen.page.inner_text("#count") == "Nothing found"
    assert "1.5 s" in seen.page.inner_text("#facts")
    seen.answers.clear()
    seen.see("two.png", picture_bytes())
    seen.set_slider("threshold", 1)
    assert seen.page.inner_text("#count") == "Nothing this sure"


TRANSFER = """([event, name, text]) => {
  const data = new DataTransfer();
  if (name) data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {type: 'image/png'}));
  else data.setData('text/plain', text);
  const init = {bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data};
  const Kind = event === 'paste' ? ClipboardEvent : DragEvent;
  document.body.dispatchEvent(new Kind(event, init));
}"""


def test_pictures_are_dropped_and_pasted(visit: Callable[..., Visit]) -> None:
    seen = visit()
    page = seen.page
    content = base64.b64encode(picture_bytes()).decode()
    page.evaluate(TRANSFER, ["paste", "", "https://example.org/photo.jpg"])
    assert "no picture to paste" in seen.notice()
    page.evaluate(TRANSFER, ["dragover", "a.png", content])
    assert page.locator("#curtain").is_visible()
    page.evaluate(TRANSFER, ["drop", "a.png", content])
    assert not page.locator("#curtain").is_visible()
    seen.wait()
    assert page.inner_text("#about").startswith("a.png · 6 × 4")
    page.evaluate(TRANSFER, ["paste", "b.png", content])
    page.wait_for_function("() => document.getElementById('about').textContent.startsWith('b.png')")
    seen.wait()
    assert seen.bodies == [picture_bytes()] * 2


def test_the_last_picture_chosen_wins(visit: Callable[..., Visit]) -> None:
    seen = visit()
    kept: list[Route] = []
    seen.answers["/v1/predict"] = kept.append  # never answered
    seen.choose("slow.png", picture_bytes())
    seen.page.wait_for_selector('body[data-state="working"]')
    seen.page.wait_for_function("() => document.getElementById('picture').naturalWidth === 6")
    seen.answers.clear()
    seen.see("fast.png", picture_bytes(8, 4))
    assert seen.page.inner_text("#about") == "fast.png · 8 × 4"
    assert not seen.page.locator("#notice").is_visible()
    assert len(kept) == 1


def test_a_huge_picture_is_shrunk_before_it_is_sent(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.see("huge.png", picture_bytes(5000, 3000, mode="L"))
    (body,) = seen.bodies
    with Image.open(io.BytesIO(body)) as sent:
        assert sent.width * sent.height <= 12_000_000
        assert sent.width / sent.height == pytest.approx(5 / 3, rel=1e-3)
        assert f"{sent.width} × {sent.height}. Shrunk from 5000 × 3000" in seen.page.inner_text("#about")
        half = sent.width // 2
    painted = seen.painted()  # on the screen every second pixel, or fewer
    assert painted.size < 3_100_000
    step = round(np.sqrt(12_000_000 / painted.size))
    assert painted[:, : half // step].all()
    assert not painted[:, half // step + 1 :].any()


def test_other_formats_are_sent_as_jpeg(visit: Callable[..., Visit]) -> None:
    seen = visit()
    seen.see("moving.gif", picture_bytes(file_format="GIF", mode="P"), "image/gif")
    assert seen.bodies[0][:2] == b"\xff\xd8"
    assert "Sent as JPEG" in seen.page.inner_text("#about")


def masks_to_try() -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    rng = np.random.default_rng(1)
    one = np.zeros((5, 7), bool)
    last = one.copy()
    last[4, 6] = True
    ring = np.ones((9, 9), bool)
    ring[3:6, 3:6] = False
    noise = [rng.random((int(h), int(w))) < share for h, w, share in [(8, 5, 0.5), (40, 33, 0.9), (31, 64, 0.1)]]
    blobs = np.kron(rng.random((6, 8)) < 0.5, np.ones((9, 7), bool)).astype(bool)
    return [one, ~one, last, ring, np.ones((1, 1), bool), blobs, *noise]


def test_masks_and_outlines_are_decoded_exactly(visit: Callable[..., Visit]) -> None:
    seen = visit()
    for mask in masks_to_try():
        (record,) = encode_rle(Instances.from_masks(mask[None], [0], [1.0]))
        got = seen.page.evaluate(
            """async (rle) => {
              const { decode, contains } = await import('/page/rle.js');
              const { outline } = await import('/page/outline.js');
              const mask = decode(rle);
              const [height, width] = rle.size;
              const canvas = Object.assign(document.createElement('canvas'), {width, height});
              const context = canvas.getContext('2d', {willReadFrequently: true});
              context.fill(outline(mask, 0), 'evenodd');
              const alpha = context.getImageData(0, 0, width, height).data.filter((_, at) => at % 4 === 3);
              const inside = [];
              for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) inside.push(contains(mask, x, y));
              return { ...mask, rows: [...mask.rows], inside, alpha: [...alpha] };
            }""",
            dict(record),
        )
        np.testing.assert_array_equal(np.reshape(got["inside"], mask.shape), mask)
        # A line through the middles of edges covers at least half of each pixel inside, at most half of one outside.
        alpha = np.reshape(got["alpha"], mask.shape)
        assert alpha[mask].min(initial=255) > 120
        assert alpha[~mask].max(initial=0) < 136
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0, 0, 0, 0]
        assert [got[key] for key in ("x0", "y0", "x1", "y1")] == box


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(visit: Callable[..., Visit], scheme: str) -> None:
    seen = visit(color_scheme=scheme, reduced_motion="reduce")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    assert seen.page.evaluate(ground) == {"light": "rgb(250, 249, 246)", "dark": "rgb(19, 20, 18)"}[scheme]
    texts = seen.page.evaluate(CONTRASTS)
    seen.choose("notes.txt", b"no picture", "text/plain")
    texts += seen.page.evaluate(CONTRASTS)
    seen.see("two.png", picture_bytes(40, 30))
    seen.set_slider("threshold", 0)
    seen.page.locator(".row").first.click()  # a hidden one is dimmed, not unreadable
    texts += seen.page.evaluate(CONTRASTS)
    assert {"2 objects", "Choose a picture", "Outlines", "left"} <= {text for text, _ in texts}
    assert [(text, round(ratio, 2)) for text, ratio in texts if ratio < TEXT_CONTRAST] == []
    assert seen.page.evaluate("document.getAnimations().length") == 0


def test_everything_has_a_name_and_its_turn(visit: Callable[..., Visit], two_models: Client) -> None:
    seen = visit(two_models)
    page = seen.page

    def walk(count: int) -> list[str]:
        """Where the Tab key leads, from the top."""
        stops = []
        page.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
        page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
        for _ in range(count):
            page.keyboard.press("Tab")
            stop, ring = page.evaluate(
                """() => {
                  const element = document.activeElement;
                  return [element.id || element.className, getComputedStyle(element).outlineStyle];
                }"""
            )
            assert ring == "solid", f"nothing shows that {stop} has the keyboard"
            stops.append(stop)
        return stops

    assert walk(8) == ["home", "model", "api", "choose", *["example"] * 4]
    assert [element for element, name in page.evaluate(NAMES) if not name] == []
    assert page.locator("h1:visible").count() == 1
    page.keyboard.press("Enter")  # the last example
    seen.wait()
    assert page.evaluate("document.activeElement.id") == "stage"
    assert [element for element, name in page.evaluate(NAMES) if not name] == []
    assert page.locator("h1:visible").count() == 1
    before_list = [
        "home",
        "model",
        "api",
        "open",
        "stage",
        "original",
        "zoom-out",
        "fit",
        "zoom-in",
        "threshold",
        "own",
    ]
    after_list = ["opacity", "outlines", "labels", "boxes", "by-class", "save-png", "save-json"]
    assert walk(19) == [*before_list, "class-row", *after_list]
    ids = page.locator("[id]").evaluate_all("elements => elements.map((element) => element.id)")
    assert len(ids) == len(set(ids))
    assert page.locator("#threshold").get_attribute("aria-valuetext") == "0.50, 1 object"


def test_on_a_phone(visit: Callable[..., Visit], two_models: Client) -> None:
    seen = visit(two_models, viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    page = seen.page
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == PHONE["width"]
    assert page.get_by_role("button", name="Take a photo").is_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    page.locator(".example").last.click()  # the page is scrolled for that
    seen.wait()
    assert page.evaluate("scrollY") == 0
    seen.see(*example("group.jpg"))
    assert page.evaluate(width) == PHONE["width"]
    sizes = page.locator("button:visible, select:visible, input:visible:not(.unseen)").evaluate_all(
        "elements => elements.map((element) => [element.id || element.className, element.offsetWidth,"
        " Math.max(element.offsetHeight, 24 * (element.type === 'range' && element.offsetHeight >= 22))])"
    )
    assert [size for size in sizes if min(size[1:]) < LEAST_TARGET] == []
    stage = page.locator("#stage").bounding_box()
    slider = page.locator("#threshold").bounding_box()
    assert stage is not None
    assert slider is not None
    assert slider["y"] + slider["height"] < PHONE["height"]  # the picture is seen while the slider moves
    touch_action = "stage => getComputedStyle(stage).touchAction"
    assert page.locator("#stage").evaluate(touch_action) == "pan-y"  # one finger scrolls the page
    seen.set_slider("threshold", 0)
    page.touchscreen.tap(stage["x"] + stage["width"] * 0.83, stage["y"] + stage["height"] * 0.6)
    seen.settle()
    assert page.locator(".row[aria-pressed='false']").count() == 1
    touch = page.context.new_cdp_session(page)
    middle, height = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    for event, spread in (("touchStart", 20), ("touchMove", 40), ("touchMove", 80), ("touchEnd", None)):
        points = [] if spread is None else [{"x": middle + side * spread, "y": height} for side in (-1, 1)]
        touch.send("Input.dispatchTouchEvent", {"type": event, "touchPoints": points})
    seen.settle()
    assert int(page.inner_text("#zoom-level").rstrip("%")) == pytest.approx(4 * 80, abs=30)
    assert page.locator(".row[aria-pressed='false']").count() == 1  # a pinch is no tap
    assert page.locator("#stage").evaluate(touch_action) == "none"


def test_the_files_ask_nobody_else_and_hide_nothing_in_the_page() -> None:
    allowed = {"https://www.flickr.com/photo.gne?id=", "https://creativecommons.org/licenses/by/2.0/"}
    for path in sorted(FILES.rglob("*")):
        if path.suffix in (".html", ".js", ".css", ".svg"):
            text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert set(re.findall(r"https?://[^\"'`\s)]+", text)) <= allowed, path.name
    html = (FILES / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)
    for picture in (FILES / "examples").iterdir():
        assert picture.stat().st_size <= 70_000
