/** The page: what happens when. State is the picture, the service's answer, and how the person wants to see it. */

import { listModels, predict, useKey } from "./api.js";
import { colorOf } from "./colors.js";
import { addressOf, creditOf, fetchExample, fittingExamples } from "./examples.js";
import { listenForPictures } from "./intake.js";
import { ObjectList } from "./list.js";
import { byClass, objectsOf, prepare } from "./objects.js";
import { closePicture, openPicture } from "./picture.js";
import { cocoFile, download, pictureFile } from "./save.js";
import { Scene } from "./scene.js";
import { describe, Summary } from "./summary.js";
import { Trouble } from "./trouble.js";

const DEFAULT_THRESHOLD = 0.5; // where the service does not say

const $ = (id) => document.getElementById(id);

const state = {
  models: [],
  picture: null,
  answer: null,
  objects: [],
  groups: [],
  threshold: DEFAULT_THRESHOLD,
  look: { opacity: 0.45, outlines: true, labels: true, boxes: false },
  sameColor: false, // for all objects of a class
  asking: null, // AbortController of the request that runs
  opening: 0, // counts, so that the last picture chosen wins
  again: null, // what "Try again" does
};

const scene = new Scene(
  { stage: $("stage"), sheet: $("sheet"), picture: $("picture"), fills: $("fills"), lines: $("lines") },
  {
    hover: (object) => light(object, true),
    click: (object) => toggle([object], !object.hidden),
    zoomed: (scale) => ($("zoom-level").textContent = `${Math.round(scale * 100)}%`),
  },
);
const list = new ObjectList($("groups"), { toggle, light: (object) => light(object, false) });
const summary = new Summary($);

// A picture arrives

async function take(file, { name, credit = [] } = {}) {
  const turn = ++state.opening;
  closeNotice();
  try {
    const picture = await openPicture(file, name);
    if (turn !== state.opening) return closePicture(picture);
    closePicture(state.picture);
    state.picture = { ...picture, credit };
    await look();
  } catch (error) {
    if (turn === state.opening) complain(error, null);
  }
}

async function takeExample(example) {
  const turn = ++state.opening;
  try {
    const blob = await fetchExample(example);
    if (turn !== state.opening) return;
    $("model").value = example.model;
    await take(blob, { name: example.file, credit: creditOf(example) });
  } catch (error) {
    if (turn === state.opening) complain(error, () => takeExample(example));
  }
}

/** Asks the service about the picture: once, for everything; the least score is the page's own business. */
async function look() {
  const { picture } = state;
  state.asking?.abort();
  const asking = new AbortController();
  state.asking = asking;
  closeNotice();
  present(null);
  setAlone(false);
  scene.open(picture, `The picture ${picture.name}`);
  $("credit").replaceChildren(...picture.credit);
  enter("working");
  $("status").textContent = "Looking for objects.";
  try {
    const answer = await predict(picture, $("model").value, asking.signal);
    if (asking.signal.aborted) return; // it had come already, but nobody waits for it any more
    present(answer);
    enter("done");
    $("status").textContent = describe(above(), state.threshold);
  } catch (error) {
    if (asking.signal.aborted) return;
    enter("failed");
    complain(error, error.again ? look : null);
  }
}

function present(answer) {
  state.answer = answer;
  state.objects = answer ? objectsOf(answer) : [];
  state.groups = byClass(state.objects);
  const model = state.models.find(({ name }) => name === answer?.model);
  state.threshold = model?.threshold ?? (answer?.threshold || DEFAULT_THRESHOLD);
  list.fill(state.groups);
  if (!answer) return;
  scene.resize(answer.image.width, answer.image.height);
  summary.open(answer, model, state.objects, state.picture);
  setColors();
  setThreshold(state.threshold);
  prepare(state.objects, () => state.answer === answer);
}

// The person changes what is seen

function above() {
  return state.objects.filter(({ score }) => score >= state.threshold);
}

function setThreshold(threshold) {
  state.threshold = threshold;
  refresh();
}

function toggle(objects, hidden) {
  for (const object of objects) object.hidden = hidden;
  refresh();
}

function refresh() {
  const seen = above();
  for (const object of state.objects) object.shown = false;
  for (const object of seen) object.shown = !object.hidden;
  scene.show(seen);
  list.update(state.threshold, state.sameColor);
  summary.update(state.threshold, seen, state.objects);
}

function light(object, scroll) {
  scene.light(object);
  list.light(object, scroll);
}

function setColors() {
  for (const { color, objects } of state.groups) {
    for (const object of objects) object.color = state.sameColor ? color : colorOf(object.index);
  }
}

function press(button) {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

/** Shows the picture without its objects, or with them again. */
function setAlone(alone) {
  $("original").setAttribute("aria-pressed", String(alone));
  scene.setAlone(alone);
}

function setLook(change) {
  state.look = { ...state.look, ...change };
  $("opacity").style.setProperty("--share", state.look.opacity);
  scene.setLook(state.look);
}

// What is on the screen

function enter(name) {
  const [from, empty] = [document.body.dataset.state, name === "empty"];
  document.body.dataset.state = name;
  $("welcome").hidden = !empty;
  $("work").hidden = empty;
  $("open").hidden = empty;
  $("progress").hidden = name !== "working";
  $("results").inert = name !== "done";
  $("work").setAttribute("aria-busy", String(name === "working"));
  if (name !== "done" && !empty) summary.wait(name, state.picture);
  if (name === "working" || empty) window.scrollTo(0, 0); // a click on an example may have been far below
  if (from === "empty" && !empty) $("stage").focus({ preventScroll: true }); // the button that had it is gone
  if (from === "empty") scene.view.fit();
}

function goHome() {
  state.opening++;
  state.asking?.abort();
  closeNotice();
  present(null);
  closePicture(state.picture);
  state.picture = null;
  $("picture").removeAttribute("src");
  enter("empty");
  $("choose").focus({ preventScroll: true });
}

function complain(error, again) {
  const trouble = error instanceof Trouble ? error : new Trouble("Something went wrong on this page", String(error));
  $("notice-title").textContent = trouble.message;
  $("notice-advice").textContent = trouble.advice;
  $("notice-again").hidden = !again;
  $("notice-again").textContent = trouble.key ? "Use it" : "Try again";
  $("key").hidden = !trouble.key;
  $("key").value = "";
  state.again = again;
  $("notice").hidden = false;
  if (trouble.key) $("key").focus();
  $("status").textContent = "";
}

function closeNotice() {
  $("notice").hidden = true;
}

function fillExamples() {
  const fitting = fittingExamples(state.models);
  $("try").hidden = !fitting.length;
  $("try-title").textContent = fitting.length === 1 ? "Or start with this one" : "Or start with one of these";
  $("examples").replaceChildren(
    ...fitting.map((example) => {
      const button = Object.assign(document.createElement("button"), { type: "button", className: "example" });
      const picture = Object.assign(new Image(), { src: addressOf(example), alt: "" });
      const title = Object.assign(document.createElement("span"), { textContent: example.title });
      button.append(picture, title);
      button.addEventListener("click", () => takeExample(example));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

/** Asks which models there are. Without an answer the page still works, as far as the service does. */
async function meet() {
  closeNotice();
  try {
    state.models = await listModels();
  } catch (error) {
    complain(error, meet);
  }
  const options = state.models.map(({ name }) => new Option(name, name));
  $("model").replaceChildren(...options);
  $("model-choice").hidden = options.length < 2;
  fillExamples();
}

// Where it all begins

function listen() {
  const on = (id, event, act) => $(id).addEventListener(event, act);
  on("home", "click", goHome);
  on("model", "change", () => state.picture && look());
  on("threshold", "input", ({ target }) => setThreshold(target.valueAsNumber));
  on("own", "click", () => setThreshold(summary.own));
  on("opacity", "input", ({ target }) => setLook({ opacity: target.valueAsNumber / 100 }));
  for (const id of ["outlines", "labels", "boxes"]) on(id, "click", ({ target }) => setLook({ [id]: press(target) }));
  on("by-class", "click", ({ target }) => {
    state.sameColor = press(target);
    setColors();
    refresh();
  });
  on("original", "click", () => setAlone(!scene.alone));
  on("zoom-in", "click", () => scene.view.zoomIn());
  on("zoom-out", "click", () => scene.view.zoomOut());
  on("fit", "click", () => scene.view.fit());
  on("save-png", "click", savePicture);
  on("save-json", "click", saveJson);
  on("notice-close", "click", closeNotice);
  on("notice-form", "submit", (event) => {
    event.preventDefault();
    if (!$("key").hidden) useKey($("key").value);
    state.again?.();
  });
  document.addEventListener("keydown", ({ key }) => key === "Escape" && closeNotice());
}

async function savePicture() {
  const objects = scene.objects.filter(({ shown }) => shown);
  const blob = await pictureFile($("picture"), state.answer.image, objects, state.look);
  if (blob) download(blob, state.picture.name, "_solov2.png");
  else complain(new Trouble("The picture could not be made", "The browser has no memory for it."), null);
}

function saveJson() {
  const objects = state.objects.filter(({ shown }) => shown);
  const { image, model } = state.answer;
  download(cocoFile(state.picture.name, image, objects, state.objects, model), state.picture.name, "_solov2.json");
}

if (/Mac|iPhone|iPad/.test(navigator.platform)) $("paste-key").textContent = "⌘ V";
listen();
listenForPictures(take, (title, advice) => complain(new Trouble(title, advice), null));
scene.setLook(state.look);
enter("empty");
meet();
