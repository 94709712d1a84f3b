"""Makes the pictures of the service's page that the documentation shows, with Chromium.

    solov2 serve -m solov2 nuclei &
    python scripts/page_screenshots.py

Each is a state of the page in one window. They are written as PNG, with fewer shades where the file would be large.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs/images"
MOST_BYTES = 400_000
BITS = (8, 7, 6, 5, 4)  # of a colour
DESKTOP, PHONE = (1160, 740), (390, 844)
PATIENCE = 120_000  # milliseconds


@dataclass(frozen=True)
class Shot:
    """A picture to make.

    Attributes:
        name: of its file.
        size: of the window in CSS pixels, width and height.
        scheme: "light" or "dark".
        example: the title of one of the page's examples; empty: the page before there is a picture.
    """

    name: str
    size: tuple[int, int]
    scheme: str
    example: str


SHOTS = (
    Shot("page_empty.png", DESKTOP, "light", ""),
    Shot("page_street.png", DESKTOP, "light", "Street"),
    Shot("page_nuclei.png", DESKTOP, "dark", "Cell nuclei"),
    Shot("page_phone.png", PHONE, "light", "Riders"),
    Shot("page_phone_dark.png", PHONE, "dark", ""),
)


def main() -> None:
    """Makes them all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", default="http://127.0.0.1:8866", help="where the service runs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pictures go")
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        parser.error("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for shot in SHOTS:
            path = arguments.folder / shot.name
            path.write_bytes(take(browser, shot, arguments.address))
            print(f"{path}  {path.stat().st_size} bytes")
        browser.close()


def take(browser: Browser, shot: Shot, address: str) -> bytes:
    """The window's content as a PNG."""
    phone = shot.size == PHONE
    density = 2 if phone else 1
    context = browser.new_context(
        viewport={"width": shot.size[0], "height": shot.size[1]},
        color_scheme="dark" if shot.scheme == "dark" else "light",
        reduced_motion="reduce",
        device_scale_factor=density,
        is_mobile=phone,
        has_touch=phone,
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address, wait_until="networkidle")
    photos = show(page, shot.example) if shot.example else page.locator(".example img")
    boxes = [photo.bounding_box() for photo in photos.all()]
    areas = [(box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]) for box in boxes if box]
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return shrink(picture, [[round(side * density) for side in area] for area in areas])


def show(page: Page, example: str) -> Locator:
    """Chooses an example and waits for its objects."""
    page.get_by_role("button", name=example).click()
    page.wait_for_selector('body[data-state="done"]')
    page.mouse.move(0, 0)  # nothing is lit
    page.wait_for_timeout(500)
    return page.locator("#stage")


def shrink(picture: Image.Image, photos: Sequence[Sequence[int]]) -> bytes:
    """A PNG whose photos, x0 y0 x1 y1, have as many shades as the file may have bytes for; the rest is exact."""
    for bits in BITS:
        step = 1 << (8 - bits)
        shades = [min(255, round(shade / step) * step) for shade in range(256)]
        coarse = picture.copy()
        for area in photos:
            left, top, right, bottom = area
            part = (left, top, min(right, picture.width), min(bottom, picture.height))
            if part[3] > top:
                coarse.paste(picture.crop(part).point(shades * 3), part)
        stream = io.BytesIO()
        coarse.save(stream, "PNG", optimize=True)
        if stream.tell() < MOST_BYTES:
            break
    return stream.getvalue()


if __name__ == "__main__":
    main()
