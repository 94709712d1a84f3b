/** The pictures to start with: for which models they are, and whose they are. */

import { Trouble } from "./trouble.js";

const FLICKR = "https://www.flickr.com/photo.gne?id=";
const CC_BY = "https://creativecommons.org/licenses/by/2.0/";

const EXAMPLES = [
  { file: "street.jpg", title: "Street", shows: ["car", "bus"], coco: 423617, flickr: "8195678412" },
  { file: "horses.jpg", title: "Riders", shows: ["person", "horse"], coco: 7281, flickr: "5022207571" },
  { file: "baseball.jpg", title: "Baseball", shows: ["person"], coco: 872, flickr: "7805810128" },
  { file: "nuclei_crowded.jpg", title: "Cell nuclei", shows: ["nucleus"] },
];

/** The examples that one of the models knows something in, each with that model's name. */
export function fittingExamples(models) {
  const fitting = EXAMPLES.map((example) => ({
    ...example,
    model: models.find(({ categories }) => example.shows.some((name) => categories.includes(name)))?.name,
  }));
  return fitting.filter(({ model }) => model);
}

export function addressOf({ file }) {
  return new URL(`examples/${file}`, import.meta.url).href;
}

export async function fetchExample(example) {
  try {
    const response = await fetch(addressOf(example));
    if (response.ok) return await response.blob();
  } catch {
    // as without an answer
  }
  throw new Trouble("The example did not arrive", "The service may have been stopped. Is it running?");
}

/** Whose picture it is, as nodes to show. */
export function creditOf({ title, coco, flickr }) {
  if (!flickr) return [`${title}: 2018 Data Science Bowl, public domain (CC0 1.0).`];
  return [
    `${title}: `,
    link("by its author on Flickr", FLICKR + flickr),
    ", ",
    link("CC BY 2.0", CC_BY),
    `, from COCO 2017 (${coco}), scaled.`,
  ];
}

function link(text, href) {
  const anchor = document.createElement("a");
  Object.assign(anchor, { href, textContent: text, target: "_blank", rel: "noopener noreferrer" });
  return anchor;
}
