/** The objects as a list: classes with counts, below each its objects; each row shows or hides what it names. */

const NUMBER = new Intl.NumberFormat("en");
const DOTS = 3; // colours that stand for a class whose objects have one each

export class ObjectList {
  /**
   * @param {HTMLElement} root a list
   * @param {{toggle: (objects: object[], hidden: boolean) => void, light: (object: ?object) => void}} on
   */
  constructor(root, on) {
    this.root = root;
    this.on = on;
    this.groups = [];
    this.rows = new Map();
    this.lit = null;
    root.addEventListener("keydown", (event) => this.#key(event));
    root.addEventListener("focusin", (event) => this.#setCurrent(event.target));
    root.addEventListener("pointerleave", () => on.light(null));
  }

  /** Lists other objects. @param {object[]} groups as of `byClass` */
  fill(groups) {
    this.rows.clear();
    this.lit = null;
    this.groups = groups.map((group) => this.#makeGroup(group));
    this.root.replaceChildren(...this.groups.map(({ item }) => item));
    this.root.scrollTop = 0;
  }

  /** Follows what changed in the objects: those below the least score go, hidden ones are dimmed. */
  update(threshold, sameColor) {
    for (const { group, item, button, dots, count } of this.groups) {
      const above = group.objects.filter(({ score }) => score >= threshold);
      const shown = above.filter(({ hidden }) => !hidden);
      item.hidden = !above.length;
      count.textContent = NUMBER.format(above.length);
      button.setAttribute("aria-pressed", String(shown.length > 0));
      button.setAttribute("aria-label", `${group.category}, ${above.length}, all`);
      const colors = sameColor ? [group.color] : above.slice(0, DOTS).map(({ color }) => color);
      dots.replaceChildren(...colors.map(({ css }) => dot(css)));
      for (const object of group.objects) this.#updateRow(object, threshold, sameColor ? group.color : object.color);
    }
    if (!this.#buttons().some(({ tabIndex }) => tabIndex === 0)) this.#setCurrent(this.#buttons()[0]);
  }

  /** Marks one object's row and brings it into sight. */
  light(object, scroll) {
    this.rows.get(this.lit)?.button.classList.remove("lit");
    this.lit = object;
    const row = this.rows.get(object)?.button;
    row?.classList.add("lit");
    if (row && scroll) this.#bringIntoSight(row);
  }

  /** Scrolls the list, and only the list. */
  #bringIntoSight(row) {
    const { scrollTop, clientHeight } = this.root;
    const top = row.offsetTop - row.closest("ul").previousElementSibling.offsetHeight; // its class lies over the top
    this.root.scrollTop = Math.max(row.offsetTop + row.offsetHeight - clientHeight, Math.min(scrollTop, top));
  }

  #makeGroup(group) {
    const item = document.createElement("li");
    const [dots, name, count] = [span("dots"), span("name", group.category), span("number")];
    const button = makeButton("class-row", dots, name, count);
    button.addEventListener("click", () => {
      const hidden = button.getAttribute("aria-pressed") === "true";
      this.on.toggle(group.objects, hidden);
    });
    const list = document.createElement("ul");
    list.setAttribute("aria-label", group.category);
    list.append(...group.objects.map((object) => this.#makeRow(object)));
    item.append(button, list);
    return { group, item, button, dots, count };
  }

  #makeRow(object) {
    const item = document.createElement("li");
    const mark = dot(object.color.css);
    const meter = span("meter");
    meter.style.setProperty("--share", object.score);
    const area = span("area", `${NUMBER.format(object.area)} px`);
    const button = makeButton("row", mark, span("score", object.score.toFixed(2)), meter, area);
    button.setAttribute("aria-label", `${object.category}, score ${object.score.toFixed(2)}, ${object.area} pixels`);
    button.addEventListener("click", () => this.on.toggle([object], !object.hidden));
    button.addEventListener("pointerenter", () => this.on.light(object));
    button.addEventListener("focus", () => button.matches(":focus-visible") && this.on.light(object));
    button.addEventListener("blur", () => this.on.light(null));
    item.append(button);
    this.rows.set(object, { item, button, mark, meter });
    return item;
  }

  #updateRow(object, threshold, { css }) {
    const { item, button, mark, meter } = this.rows.get(object);
    item.hidden = object.score < threshold;
    button.setAttribute("aria-pressed", String(!object.hidden));
    mark.style.backgroundColor = css;
    meter.style.setProperty("--color", css);
  }

  /** One stop for the Tab key; arrow keys go on from there. */
  #setCurrent(button) {
    for (const other of this.root.querySelectorAll("button")) other.tabIndex = other === button ? 0 : -1;
  }

  #buttons() {
    return [...this.root.querySelectorAll("button")].filter((button) => !button.closest("li[hidden]"));
  }

  #key(event) {
    const buttons = this.#buttons();
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    buttons[Math.max(0, Math.min(to, buttons.length - 1))].focus();
  }
}

function makeButton(name, ...children) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: name, tabIndex: -1 });
  button.append(...children);
  return button;
}

function span(name, text = "") {
  return Object.assign(document.createElement("span"), { className: name, textContent: text });
}

function dot(css) {
  const mark = span("dot");
  mark.style.backgroundColor = css;
  return mark;
}
