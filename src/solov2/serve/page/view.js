/** Zoom and pan: which part of the picture the stage shows. Reports hovering and clicks in the picture's pixels. */

const LARGEST = 24; // screen pixels per pixel of the picture
const FIT_LARGEST = 6; // what fitting enlarges a small picture to at most
const STEP = 1.4; // of the zoom buttons and keys
const CLICK_SLACK = 5; // screen pixels that a finger moves in a tap

export class View {
  /**
   * @param {HTMLElement} stage what is looked through
   * @param {{changed: () => void, hover: (point: ?{x, y}) => void, click: (point: {x, y}) => void}} on
   */
  constructor(stage, on) {
    this.stage = stage;
    this.on = on;
    this.size = { width: 1, height: 1 };
    this.frame = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.pointers = new Map();
    this.travel = 0;
    this.#listen();
  }

  /** Shows the whole of a picture. */
  open(width, height) {
    this.size = { width, height };
    this.fit();
  }

  fit() {
    const { clientWidth, clientHeight } = this.stage;
    const scale = this.#fitScale();
    const { width, height } = this.size;
    this.frame = { scale, x: (clientWidth - width * scale) / 2, y: (clientHeight - height * scale) / 2 };
    this.fitted = true;
    this.on.changed();
  }

  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const least = this.#fitScale();
    const scale = Math.max(least, Math.min(this.frame.scale * factor, Math.max(LARGEST, least)));
    if (scale <= least * 1.001) return this.fit();
    const ratio = scale / this.frame.scale;
    this.frame = { scale, x: x - (x - this.frame.x) * ratio, y: y - (y - this.frame.y) * ratio };
    this.fitted = false;
    this.#keepInside();
    this.on.changed();
  }

  zoomIn() {
    this.zoom(STEP);
  }

  zoomOut() {
    this.zoom(1 / STEP);
  }

  pan(dx, dy) {
    if (this.fitted) return;
    this.frame = { ...this.frame, x: this.frame.x + dx, y: this.frame.y + dy };
    this.#keepInside();
    this.on.changed();
  }

  #fitScale() {
    const { clientWidth, clientHeight } = this.stage;
    return Math.min(clientWidth / this.size.width, clientHeight / this.size.height, FIT_LARGEST);
  }

  /** A picture wider than the stage leaves no gap at a side, a narrower one stays in the middle; so in height. */
  #keepInside() {
    const { clientWidth, clientHeight } = this.stage;
    const along = (offset, length, room) =>
      length <= room ? (room - length) / 2 : Math.min(0, Math.max(offset, room - length));
    this.frame.x = along(this.frame.x, this.size.width * this.frame.scale, clientWidth);
    this.frame.y = along(this.frame.y, this.size.height * this.frame.scale, clientHeight);
  }

  #listen() {
    const { stage } = this;
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    stage.addEventListener("pointerup", (event) => this.#up(event));
    stage.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    stage.addEventListener("pointerleave", () => this.on.hover(null));
    // Two fingers zoom the picture; without this the page would scroll under them.
    const keep = (event) => event.touches.length > 1 && event.preventDefault();
    stage.addEventListener("touchmove", keep, { passive: false });
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => {
      if (this.fitted) this.fit();
      else this.zoom(1);
    }).observe(stage);
  }

  #local({ clientX, clientY }) {
    const { left, top } = this.stage.getBoundingClientRect();
    return { x: clientX - left - this.stage.clientLeft, y: clientY - top - this.stage.clientTop };
  }

  #pixel(event) {
    const { x, y } = this.#local(event);
    const { scale, x: left, y: top } = this.frame;
    return { x: Math.floor((x - left) / scale), y: Math.floor((y - top) / scale) };
  }

  #down(event) {
    if (event.button) return;
    if (!this.pointers.size) this.travel = 0;
    this.pointers.set(event.pointerId, this.#local(event));
    if (event.pointerType !== "touch" || !this.fitted) this.stage.setPointerCapture(event.pointerId);
  }

  #move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") this.on.hover(this.#pixel(event));
      return;
    }
    const now = this.#local(event);
    this.travel += Math.hypot(now.x - before.x, now.y - before.y);
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (other) this.#pinch(before, now, other);
    else if (this.travel > CLICK_SLACK) this.pan(now.x - before.x, now.y - before.y);
  }

  #pinch(before, now, other) {
    const spread = (point) => Math.hypot(point.x - other.x, point.y - other.y);
    this.zoom(spread(now) / Math.max(spread(before), 1), (now.x + other.x) / 2, (now.y + other.y) / 2);
    this.pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (!this.pointers.size && this.travel <= CLICK_SLACK) this.on.click(this.#pixel(event));
    else if (this.pointers.size) this.travel = Infinity; // what is left of a pinch is no tap
  }

  /** The wheel zooms; where the page scrolls only with Ctrl, so that nobody gets stuck on the picture. */
  #wheel(event) {
    if (!event.ctrlKey && document.documentElement.scrollHeight > window.innerHeight + 1) return;
    event.preventDefault();
    const { x, y } = this.#local(event);
    const delta = Math.max(-60, Math.min(event.deltaY * (event.deltaMode ? 20 : 1), 60));
    this.zoom(Math.exp(-delta / (event.ctrlKey ? 100 : 240)), x, y);
  }

  #key(event) {
    const far = 60;
    const keys = {
      "+": () => this.zoomIn(),
      "=": () => this.zoomIn(),
      "-": () => this.zoomOut(),
      0: () => this.fit(),
      ArrowLeft: () => this.pan(far, 0),
      ArrowRight: () => this.pan(-far, 0),
      ArrowUp: () => this.pan(0, far),
      ArrowDown: () => this.pan(0, -far),
    };
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    if (this.fitted && event.key.startsWith("Arrow")) return; // nothing to pan: let the page scroll
    event.preventDefault();
    keys[event.key]();
  }
}
