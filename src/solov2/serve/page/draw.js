/**
 * Drawing. Fills go pixel by pixel into a buffer of the picture's size; outlines, boxes and labels are lines of
 * constant width on a canvas of any scale. Objects are those of `objectsOf`; small ones lie over large ones.
 */

const CASING = "rgb(0 0 0 / 0.45)"; // the dark edge that keeps a line visible on a ground of its own colour
const CASED_SIDE = 18; // on a smaller object it would hide more than it shows
const MANY = 30; // objects; more of them get thinner lines and no labels
const VERY_MANY = 100; // more of them get lines of one pixel, which cost a twentieth of wider ones
const LABEL_TO_BOX = 1.5; // a label wider than this many boxes hides more than it says

/**
 * Paints the masks of objects, large first, so that each pixel shows the smallest object it belongs to.
 *
 * @param {Uint32Array} pixels columns * rows, overwritten; transparent where there is no object
 * @param {number} step every how many pixels of the picture one is painted: 1 is all of them
 */
export function paintFills(pixels, columns, objects, step = 1) {
  pixels.fill(0);
  for (const { mask, color } of objects) {
    const { rows } = mask;
    for (let at = 0; at < rows.length; at += 3) {
      if (rows[at] % step) continue;
      const line = (rows[at] / step) * columns;
      pixels.fill(color.pixel, line + Math.ceil(rows[at + 1] / step), line + Math.ceil(rows[at + 2] / step));
    }
  }
}

const buffers = new WeakMap(); // what was painted on each canvas: to make it anew would take longer than to paint

/** Puts the fills of objects onto a canvas, which gets the picture's size divided by `step`. */
export function drawFills(canvas, objects, width, height, step = 1) {
  const [columns, rows] = [Math.ceil(width / step), Math.ceil(height / step)];
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  let image = buffers.get(canvas);
  if (image?.width !== columns || image.height !== rows) {
    image = new ImageData(columns, rows);
    buffers.set(canvas, image);
  }
  paintFills(new Uint32Array(image.data.buffer), columns, objects, step);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/**
 * Draws outlines, boxes and labels.
 *
 * @param {object[]} objects large first
 * @param {{outlines: boolean, boxes: boolean, labels: boolean}} look
 * @param {{scale: number, x: number, y: number, unit: number}} frame where the picture lies on the canvas: canvas
 *     pixels per pixel of the picture, its corner, and how many canvas pixels a line of width 1 has
 * @param {?object} lit one object that stands out; if it is not `shown`, by a broken line
 */
export function drawLines(context, objects, look, frame, lit = null) {
  const inside = objects.filter(({ box }) => isVisible(box, frame, context.canvas));
  const thick = inside.length > MANY ? 1.4 : 2;
  context.save();
  context.setTransform(frame.scale, 0, 0, frame.scale, frame.x, frame.y);
  context.lineJoin = "round";
  for (const object of inside) {
    const lines = linesOf(object, look);
    if (!lines.length) continue;
    const cased = inside.length <= VERY_MANY && smallSide(object.box) * frame.scale > CASED_SIDE * frame.unit;
    const width = ((cased ? thick : 1) * frame.unit) / frame.scale;
    if (cased) for (const line of lines) stroke(context, line, CASING, 2 * width);
    for (const line of lines) stroke(context, line, object.color.css, width);
  }
  context.restore();
  if (lit) drawLit(context, lit, frame);
  const few = look.labels && inside.length <= MANY;
  drawLabels(context, few ? inside.filter((object) => object !== lit) : [], frame, lit);
}

function drawLit(context, object, frame) {
  const { unit } = frame;
  context.save();
  context.setTransform(frame.scale, 0, 0, frame.scale, frame.x, frame.y);
  context.lineJoin = "round";
  if (object.shown) {
    context.globalAlpha = 0.35;
    context.fillStyle = object.color.css;
    context.fill(object.path, "evenodd");
    context.globalAlpha = 1;
  } else {
    context.setLineDash([(6 * unit) / frame.scale, (5 * unit) / frame.scale]);
  }
  stroke(context, object.path, CASING, (6 * unit) / frame.scale);
  stroke(context, object.path, "#fff", (4 * unit) / frame.scale);
  stroke(context, object.path, object.color.css, (2 * unit) / frame.scale);
  context.restore();
}

function linesOf({ path, box: [x0, y0, x1, y1] }, look) {
  const lines = look.outlines ? [path] : [];
  if (look.boxes) {
    const frame = new Path2D();
    frame.rect(x0, y0, x1 - x0, y1 - y0);
    lines.push(frame);
  }
  return lines;
}

function stroke(context, path, style, width) {
  context.strokeStyle = style;
  context.lineWidth = width;
  context.stroke(path);
}

function isVisible([x0, y0, x1, y1], { scale, x, y }, { width, height }) {
  return x1 * scale + x > 0 && y1 * scale + y > 0 && x0 * scale + x < width && y0 * scale + y < height;
}

function smallSide([x0, y0, x1, y1]) {
  return Math.min(x1 - x0, y1 - y0);
}

/** Labels of the best objects first, where they hide neither each other nor more than their object. */
function drawLabels(context, objects, frame, lit) {
  const taken = lit ? [placeLabel(context, lit, frame)] : [];
  if (lit) drawLabel(context, lit, taken[0], frame);
  for (const object of [...objects].sort((one, other) => other.score - one.score)) {
    const place = placeLabel(context, object, frame);
    const [x0, , x1] = object.box;
    if (place.width > (x1 - x0) * frame.scale * LABEL_TO_BOX || taken.some((other) => overlap(place, other))) continue;
    taken.push(place);
    drawLabel(context, object, place, frame);
  }
}

/** Above the object, or inside it where there is no room. */
function placeLabel(context, { anchor, label }, { scale, x, y, unit }) {
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  const [width, height] = [context.measureText(label).width + 12 * unit, 20 * unit];
  const { width: right, height: bottom } = context.canvas;
  const gap = 3 * unit;
  const [middle, upper] = [x + anchor.x * scale, y + anchor.y * scale];
  const wish = upper - height - gap;
  return {
    left: clamp(middle - width / 2, gap, right - width - gap),
    top: clamp(wish < gap ? upper + gap : wish, gap, bottom - height - gap),
    width,
    height,
  };
}

function drawLabel(context, { label, color }, { left, top, width, height }, { unit }) {
  context.beginPath();
  context.roundRect(left, top, width, height, 5 * unit);
  context.fillStyle = color.css;
  context.fill();
  context.fillStyle = color.ink;
  context.textBaseline = "middle";
  context.fillText(label, left + 6 * unit, top + height / 2 + 0.5 * unit);
}

function overlap(one, other) {
  return (
    one.left < other.left + other.width &&
    other.left < one.left + one.width &&
    one.top < other.top + other.height &&
    other.top < one.top + one.height
  );
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(value, high));
}
