/** The borders of a mask as closed lines, holes included, in the picture's coordinates (a pixel's corner is whole). */

const TURNS = [
  // Direction of travel with the mask on the right; then the pixels ahead to the right and to the left of a corner.
  { dx: 1, dy: 0, right: [0, 0], left: [0, -1] },
  { dx: 0, dy: 1, right: [-1, 0], left: [0, 0] },
  { dx: -1, dy: 0, right: [-1, -1], left: [-1, 0] },
  { dx: 0, dy: -1, right: [0, -1], left: [-1, -1] },
];

/**
 * A Path2D around the mask.
 *
 * The line runs through the middles of the pixels' edges, which cuts their corners, and leaves out points that lie
 * within `tolerance` pixels of the line without them (Douglas and Peucker, 1973).
 */
export function outline(mask, tolerance = 0.6) {
  const path = new Path2D();
  for (const loop of borders(mask)) {
    const points = simplify(loop, tolerance);
    path.moveTo(points[0], points[1]);
    for (let at = 2; at < points.length; at += 2) path.lineTo(points[at], points[at + 1]);
    path.closePath();
  }
  return path;
}

/** Closed lines as flat arrays x, y, x, y, ... */
export function borders({ x0, y0, x1, y1, rows }) {
  const width = x1 - x0 + 2; // a ring of background around the mask ends every search
  const height = y1 - y0 + 2;
  const inside = new Uint8Array(width * height);
  for (let at = 0; at < rows.length; at += 3) {
    const line = (rows[at] - y0 + 1) * width - x0 + 1;
    inside.fill(1, line + rows[at + 1], line + rows[at + 2]);
  }
  const loops = [];
  const seen = new Uint8Array(width * height); // upper edges that a line has passed
  for (let at = 0; at < rows.length; at += 3) {
    const y = rows[at] - y0 + 1;
    for (let x = rows[at + 1] - x0 + 1; x < rows[at + 2] - x0 + 1; x++) {
      if (!inside[(y - 1) * width + x] && !seen[y * width + x]) {
        loops.push(follow(inside, seen, width, x, y, x0 - 1, y0 - 1));
      }
    }
  }
  return loops;
}

function follow(inside, seen, width, startX, startY, offsetX, offsetY) {
  const points = [];
  let [x, y, direction] = [startX, startY, 0];
  let before = -1;
  do {
    const { dx, dy } = TURNS[direction];
    if (direction === 0) seen[y * width + x] = 1;
    if (direction !== before && before >= 0) push(points, x - TURNS[before].dx / 2, y - TURNS[before].dy / 2);
    if (direction !== before) push(points, x + dx / 2, y + dy / 2);
    before = direction;
    x += dx;
    y += dy;
    const { right, left } = TURNS[direction];
    if (!inside[(y + right[1]) * width + x + right[0]]) direction = (direction + 1) % 4;
    else if (inside[(y + left[1]) * width + x + left[0]]) direction = (direction + 3) % 4;
  } while (x !== startX || y !== startY || direction !== 0);
  push(points, x - TURNS[before].dx / 2, y - TURNS[before].dy / 2);
  for (let at = 0; at < points.length; at += 2) {
    points[at] += offsetX;
    points[at + 1] += offsetY;
  }
  return points;
}

function push(points, x, y) {
  const last = points.length - 2;
  if (last < 0 || points[last] !== x || points[last + 1] !== y) points.push(x, y);
}

/** Douglas and Peucker's choice of points of a closed line. */
export function simplify(points, tolerance) {
  const count = points.length / 2;
  if (count <= 8) return points; // a few pixels: every corner counts
  const far = farthest(points, 0, 0, count).index;
  const keep = new Uint8Array(count);
  keep[0] = keep[far] = 1;
  const pending = [
    [0, far],
    [far, count],
  ];
  while (pending.length) {
    const [from, to] = pending.pop();
    const { index, distance } = farthest(points, from, to % count, to);
    if (distance > tolerance) {
      keep[index] = 1;
      pending.push([from, index], [index, to]);
    }
  }
  return points.filter((_, at) => keep[at >> 1]);
}

/** The point between `from` and `end` that lies farthest from the line from `from` to `to`. */
function farthest(points, from, to, end) {
  const [ax, ay, bx, by] = [points[2 * from], points[2 * from + 1], points[2 * to], points[2 * to + 1]];
  const length = Math.hypot(bx - ax, by - ay);
  let [index, distance] = [from, -1];
  for (let at = from + 1; at < end; at++) {
    const [x, y] = [points[2 * at] - ax, points[2 * at + 1] - ay];
    const away = length ? Math.abs((bx - ax) * y - (by - ay) * x) / length : Math.hypot(x, y);
    if (away > distance) [index, distance] = [at, away];
  }
  return { index, distance };
}
