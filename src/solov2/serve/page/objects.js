/** The objects of an answer, ready to draw: masks and outlines are made once, when they are first needed. */

import { colorOf } from "./colors.js";
import { outline } from "./outline.js";
import { contains, decode, topOf } from "./rle.js";

const PORTION = 6; // milliseconds of work, less than a frame of the screen, ...
const PAUSE = 12; // ... and of rest after it
const FINE = 1600; // pixels on the longer side, up to which outlines keep their full detail

/** @param {object} answer of the service; its instances are best first and stay in that order */
export function objectsOf(answer) {
  const { width, height } = answer.image;
  const tolerance = 0.6 * Math.max(1, Math.max(width, height) / FINE);
  return answer.instances.map((instance, index) => makeObject(instance, index, tolerance));
}

function makeObject({ category, category_id, score, box, area, segmentation }, index, tolerance) {
  let mask;
  let path;
  let anchor;
  return {
    index,
    category,
    category_id,
    score,
    box,
    area,
    segmentation,
    label: `${category} ${score.toFixed(2)}`,
    color: colorOf(index),
    hidden: false, // by the person's own choice
    shown: true, // not hidden, and above the least score
    get mask() {
      return (mask ??= decode(segmentation));
    },
    get path() {
      return (path ??= outline(this.mask, tolerance));
    },
    get anchor() {
      return (anchor ??= topOf(this.mask));
    },
  };
}

/** Makes the masks and outlines of objects in small portions, while nothing else happens. */
export function prepare(objects, goOn) {
  let at = 0;
  const portion = () => {
    const end = performance.now() + PORTION;
    while (at < objects.length && performance.now() < end) objects[at++].path;
    if (at < objects.length && goOn()) setTimeout(portion, PAUSE);
  };
  setTimeout(portion, PAUSE);
}

/** Classes in the order of their best object: [{category, color, objects}], objects best first. */
export function byClass(objects) {
  const groups = new Map();
  for (const object of objects) {
    if (!groups.has(object.category)) {
      groups.set(object.category, { category: object.category, color: colorOf(groups.size), objects: [] });
    }
    groups.get(object.category).objects.push(object);
  }
  return [...groups.values()];
}

/** Large ones first, the order they are drawn in. */
export function largeFirst(objects) {
  return [...objects].sort((one, other) => other.area - one.area);
}

/** The smallest object at a pixel of the picture, among those given; null where there is none. */
export function objectAt(objects, x, y) {
  const inBox = objects.filter(({ box: [x0, y0, x1, y1] }) => x >= x0 && x < x1 && y >= y0 && y < y1);
  return largeFirst(inBox).findLast(({ mask }) => contains(mask, x, y)) ?? null;
}
