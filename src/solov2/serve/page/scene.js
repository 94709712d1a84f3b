/** The picture with its objects on the stage; redraws at most once a frame, and only what changed. */

import { drawFills, drawLines } from "./draw.js";
import { largeFirst, objectAt } from "./objects.js";
import { View } from "./view.js";

const MOST_PAINTED = 3_000_000; // pixels; of a larger picture the screen gets every second, third, ... one
const SHARP_FROM = 6; // screen pixels per pixel of the picture, from where on pixels are shown as squares

export class Scene {
  /**
   * @param {object} parts elements: stage, sheet, picture, fills, lines
   * @param {{hover: (object: ?object) => void, click: (object: object) => void, zoomed: (share: number) => void}} on
   */
  constructor(parts, on) {
    Object.assign(this, parts);
    this.on = on;
    this.size = { width: 1, height: 1 };
    this.objects = []; // large first
    this.look = { opacity: 0.45, outlines: true, labels: true, boxes: false };
    this.lit = null;
    this.alone = false; // the picture without its objects
    this.stale = new Set();
    this.view = new View(this.stage, {
      changed: () => this.#refresh("view", "lines"),
      hover: (point) => this.on.hover(point && this.#at(point)),
      click: (point) => {
        const object = this.#at(point);
        if (object) this.on.click(object);
      },
    });
    window.addEventListener("resize", () => this.#refresh("lines")); // the density of the screen may be another
  }

  /** Shows a picture without objects. @param {{url, width, height}} picture */
  open({ url, width, height }, alt) {
    this.picture.src = url;
    this.picture.alt = alt;
    this.show([]);
    this.resize(width, height);
    this.view.fit();
  }

  /** The size that the objects' coordinates are of. */
  resize(width, height) {
    if (width === this.size.width && height === this.size.height) return; // leaves zoom and place alone
    this.size = { width, height };
    for (const element of [this.sheet, this.picture]) {
      element.style.width = `${width}px`;
      element.style.height = `${height}px`;
    }
    this.stage.style.setProperty("--aspect", width / height);
    this.view.open(width, height);
  }

  /** Other objects, or the same with `shown` or `color` changed. */
  show(objects) {
    this.objects = largeFirst(objects);
    if (!objects.includes(this.lit)) this.lit = null;
    this.#refresh("fills", "lines");
  }

  setLook(look) {
    this.look = look;
    this.fills.style.opacity = look.opacity;
    this.#refresh("lines");
  }

  light(object) {
    if (object === this.lit) return;
    this.lit = object;
    this.#refresh("lines");
  }

  setAlone(alone) {
    this.alone = alone;
    this.fills.hidden = alone;
    this.#refresh("lines");
  }

  #at({ x, y }) {
    return this.alone ? null : objectAt(this.objects, x, y);
  }

  #refresh(...parts) {
    if (!this.stale.size) requestAnimationFrame(() => this.#draw());
    for (const part of parts) this.stale.add(part);
  }

  #draw() {
    const stale = this.stale;
    this.stale = new Set();
    if (stale.has("view")) this.#place();
    if (stale.has("fills")) this.#drawFills();
    if (stale.has("lines")) this.#drawLines();
  }

  #place() {
    const { scale, x, y } = this.view.frame;
    this.sheet.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.sheet.style.setProperty("--scale", scale); // for what keeps its size on the screen
    this.sheet.classList.toggle("sharp", scale >= SHARP_FROM);
    this.stage.classList.toggle("zoomed", !this.view.fitted);
    this.on.zoomed(scale);
  }

  #drawFills() {
    const { width, height } = this.size;
    const step = Math.ceil(Math.sqrt((width * height) / MOST_PAINTED));
    drawFills(this.fills, this.objects.filter(({ shown }) => shown), width, height, step);
    this.fills.style.width = `${this.fills.width * step}px`;
    this.fills.style.height = `${this.fills.height * step}px`;
  }

  #drawLines() {
    const { lines, stage } = this;
    const unit = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(stage.clientWidth * unit), Math.round(stage.clientHeight * unit)];
    if (lines.width !== width || lines.height !== height) [lines.width, lines.height] = [width, height];
    const context = lines.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (this.alone) return;
    const { scale, x, y } = this.view.frame;
    const frame = { scale: scale * unit, x: x * unit, y: y * unit, unit };
    drawLines(context, this.objects.filter(({ shown }) => shown), this.look, frame, this.lit);
  }
}
