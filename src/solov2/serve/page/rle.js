/**
 * COCO's compressed run lengths become row runs, which are what painting, hit tests and outlines work on.
 *
 * A mask is {x0, y0, x1, y1, rows}: its extent (right and bottom exclusive, zeros when empty) and an Int32Array of
 * triples y, start, end (end exclusive), in reading order. Coordinates are pixels of the picture.
 */

const LETTER_BITS = 5;
const MORE = 32;
const SIGN = 16;

/**
 * Run lengths of 0 and 1 in turn, down the columns, starting with 0.
 * From the fourth run on, the text holds the difference to the run before the last.
 */
export function runLengths(text) {
  const lengths = [];
  let at = 0;
  while (at < text.length) {
    let value = 0;
    let place = 1;
    let letter;
    do {
      letter = text.charCodeAt(at++) - 48;
      value += (letter & (MORE - 1)) * place;
      place *= 1 << LETTER_BITS;
    } while (letter & MORE);
    if (letter & SIGN) value -= place;
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  return lengths;
}

/** The mask of a COCO RLE, {size: [height, width], counts: text}. Throws where the runs do not fill the size. */
export function decode({ size: [height, width], counts }) {
  const lengths = runLengths(counts);
  const total = lengths.reduce((sum, length) => (length >= 0 ? sum + length : NaN), 0);
  if (total !== height * width) throw new RangeError(`the runs of a mask fill ${total} of ${height * width} pixels`);
  const extent = extentOf(lengths, height);
  if (!extent) return { x0: 0, y0: 0, x1: 0, y1: 0, rows: new Int32Array(0) };
  const crop = new Uint8Array((extent.x1 - extent.x0) * (extent.y1 - extent.y0));
  fillColumns(crop, extent, lengths, height);
  return { ...extent, rows: rowsOf(crop, extent) };
}

function extentOf(lengths, height) {
  let [x0, y0, x1, y1] = [Infinity, Infinity, 0, 0];
  let at = 0;
  lengths.forEach((length, index) => {
    const end = at + length;
    if (index % 2 && length) {
      const [first, last] = [Math.floor(at / height), Math.floor((end - 1) / height)];
      const wraps = last > first;
      x0 = Math.min(x0, first);
      x1 = Math.max(x1, last + 1);
      y0 = wraps ? 0 : Math.min(y0, at % height);
      y1 = wraps ? height : Math.max(y1, ((end - 1) % height) + 1);
    }
    at = end;
  });
  return x1 ? { x0, y0, x1, y1 } : null;
}

function fillColumns(crop, { x0, y0, x1 }, lengths, height) {
  const width = x1 - x0;
  let at = 0;
  for (let index = 0; index < lengths.length; index++) {
    const end = at + lengths[index];
    if (index % 2) {
      let x = Math.floor(at / height);
      let y = at - x * height;
      for (let left = end - at; left > 0; left--) {
        crop[(y - y0) * width + x - x0] = 1;
        if (++y === height) {
          y = 0;
          x++;
        }
      }
    }
    at = end;
  }
}

function rowsOf(crop, { x0, y0, x1, y1 }) {
  const width = x1 - x0;
  const rows = [];
  for (let y = 0; y < y1 - y0; y++) {
    const line = crop.subarray(y * width, (y + 1) * width);
    let start = line.indexOf(1);
    while (start >= 0) {
      const stop = line.indexOf(0, start);
      const end = stop < 0 ? width : stop;
      rows.push(y + y0, start + x0, end + x0);
      start = stop < 0 ? -1 : line.indexOf(1, stop);
    }
  }
  return Int32Array.from(rows);
}

/** Whether a pixel belongs to the mask. */
export function contains({ x0, y0, x1, y1, rows }, x, y) {
  if (x < x0 || x >= x1 || y < y0 || y >= y1) return false;
  for (let at = 0; at < rows.length && rows[at] <= y; at += 3) {
    if (rows[at] === y && rows[at + 1] <= x && x < rows[at + 2]) return true;
  }
  return false;
}

/** Where a label belongs: the column of the centre of mass, at the highest pixel there or, in a gap, nearby. */
export function topOf({ x0, y0, rows }) {
  let [sum, count] = [0, 0];
  for (let at = 0; at < rows.length; at += 3) {
    const length = rows[at + 2] - rows[at + 1];
    sum += length * ((rows[at + 1] + rows[at + 2]) / 2);
    count += length;
  }
  if (!count) return { x: x0, y: y0 };
  const x = sum / count;
  let [best, nearest] = [0, Infinity];
  for (let at = 0; at < rows.length && nearest > 0; at += 3) {
    const away = Math.max(rows[at + 1] - x, x - rows[at + 2], 0);
    if (away < nearest) [best, nearest] = [at, away];
  }
  return { x, y: rows[best] };
}
