/** Files to keep: the picture with its masks, and the objects as a COCO data set of one picture. */

import { drawFills, drawLines } from "./draw.js";

const SMALLEST_TYPE = 10 / 12; // of the labels' usual size: below, digits run together
const SIDE_PER_UNIT = 900; // √(picture area) per pixel of a line of width 1

/**
 * The picture with its masks at full size.
 *
 * @param {HTMLImageElement} picture
 * @param {object[]} objects large first
 * @param {{opacity: number, outlines: boolean, boxes: boolean, labels: boolean}} look
 * @returns {Promise<?Blob>} a PNG; null where the browser has no memory for it
 */
export function pictureFile(picture, { width, height }, objects, look) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, width, height);
  if (look.opacity && objects.length) {
    const fills = document.createElement("canvas");
    drawFills(fills, objects, width, height);
    context.globalAlpha = look.opacity;
    context.drawImage(fills, 0, 0);
    context.globalAlpha = 1;
  }
  const unit = Math.max(SMALLEST_TYPE, Math.sqrt(width * height) / SIDE_PER_UNIT);
  drawLines(context, objects, look, { scale: 1, x: 0, y: 0, unit });
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

/** A COCO data set: the picture, the objects as annotations with a score, and the classes among all objects. */
export function cocoFile(fileName, { width, height }, objects, allObjects, model) {
  const classes = new Map(allObjects.map(({ category, category_id }) => [category_id, category]));
  const dataset = {
    info: { description: `Objects found by ${model} (solov2)` },
    images: [{ id: 1, file_name: fileName, width, height }],
    annotations: objects.map(({ category_id, segmentation, box: [x0, y0, x1, y1], area, score }, index) => ({
      id: index + 1,
      image_id: 1,
      category_id,
      segmentation,
      bbox: [x0, y0, x1 - x0, y1 - y0],
      area,
      iscrowd: 0,
      score,
    })),
    categories: [...classes].sort(([one], [other]) => one - other).map(([id, name]) => ({ id, name })),
  };
  return new Blob([JSON.stringify(dataset)], { type: "application/json" });
}

/** Gives a file to the person, under the picture's name with another ending. */
export function download(blob, pictureName, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = pictureName.replace(/\.[^.]*$/, "") + ending;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a browser may ask where to before it reads
}
