/** The numbers beside the picture: how many objects, their scores, which model, how long. */

const BINS = 50;
const SECOND = 1000; // milliseconds

export class Summary {
  /** @param {(id: string) => HTMLElement} part finds an element of the page */
  constructor(part) {
    this.part = part;
    this.own = 0; // the model's own least score
    this.bars = Array.from({ length: BINS }, () => document.createElement("i"));
    part("histogram").replaceChildren(...this.bars);
  }

  /** A new answer. */
  open(answer, model, objects, picture) {
    this.own = model?.threshold ?? 0;
    this.part("own").hidden = !model;
    this.part("own").style.setProperty("--share", this.own);
    this.part("own").setAttribute("aria-label", `Back to the model’s own least score, ${this.own.toFixed(2)}`);
    this.part("about").textContent = about(picture, answer.image);
    this.part("facts").replaceChildren(...facts(answer, model));
    this.#drawHistogram(objects);
  }

  /** Before an answer, or without one. */
  wait(state, picture) {
    this.part("count").textContent = state === "working" ? "Looking…" : "No answer";
    this.part("about").textContent = about(picture, picture);
    this.part("facts").replaceChildren();
  }

  update(threshold, seen, objects) {
    this.part("count").textContent = heading(seen, objects);
    this.part("threshold-value").textContent = threshold.toFixed(2);
    const slider = this.part("threshold");
    if (slider.valueAsNumber !== threshold) slider.value = threshold;
    slider.style.setProperty("--share", threshold);
    slider.setAttribute("aria-valuetext", `${threshold.toFixed(2)}, ${plural(seen.length, "object")}`);
    this.bars.forEach((bar, index) => bar.classList.toggle("above", (index + 0.5) / BINS >= threshold));
  }

  /** Roots of the counts: one object must be seen beside a hundred. */
  #drawHistogram(objects) {
    const counts = new Array(BINS).fill(0);
    for (const { score } of objects) counts[Math.min(BINS - 1, Math.floor(score * BINS))]++;
    const most = Math.max(...counts, 1);
    this.bars.forEach((bar, index) => bar.style.setProperty("--share", Math.sqrt(counts[index] / most)));
  }
}

/** "7 objects found: 4 cars, ...", for those who listen. */
export function describe(seen, threshold) {
  if (!seen.length) return `Nothing found with a score of ${threshold.toFixed(2)} or more.`;
  const counts = new Map();
  for (const { category } of seen) counts.set(category, (counts.get(category) ?? 0) + 1);
  const classes = [...counts].map(([category, count]) => `${count} ${category}`).join(", ");
  return `${plural(seen.length, "object")} found: ${classes}.`;
}

function about({ name, note }, { width, height }) {
  const size = `${name} · ${width} × ${height}`;
  return note ? `${size}. ${note}` : size;
}

function heading(seen, objects) {
  if (seen.length) return plural(seen.length, "object");
  return objects.length ? "Nothing this sure" : "Nothing found";
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function facts({ model, timing }, known) {
  const place = known ? `${known.runtime} on ${known.device}` : "";
  const licence = known?.licence ?? "";
  const total = timing.total_ms;
  const time = total >= SECOND ? `${(total / SECOND).toFixed(1)} s` : `${Math.round(total)} ms`;
  const steps = [
    ["read", timing.decode_ms],
    ["waited", timing.queue_ms],
    ["looked", timing.predict_ms],
    ["packed", timing.encode_ms],
  ].map(([name, spent]) => `${name} ${Math.round(spent)}`);
  return [
    line([model, place, licence].filter(Boolean).join(" · ")),
    line(`${time}: ${steps.join(", ")} ms`),
  ];
}

function line(text) {
  return Object.assign(document.createElement("span"), { textContent: text });
}
