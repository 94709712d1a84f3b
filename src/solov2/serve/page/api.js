/** The service's own interface, as far as this page needs it. */

import { Trouble } from "./trouble.js";

const LATER = { again: true };

let key = ""; // asked for only where the service wants one, and kept for as long as the page is open

const V1 = new URL("../v1/", import.meta.url); // also right where the service lives below a path of its own

/** The models the service has, the one it uses by itself first. */
export async function listModels() {
  const { models } = await ask("models");
  return [...models].sort((one, other) => Number(other.default) - Number(one.default));
}

/**
 * Everything a model sees in a picture, whatever its score: the page filters by itself.
 *
 * @param {{bytes: ArrayBuffer, type: string}} picture an encoded one
 * @param {?string} model its name; the service's choice where there is none
 * @param {AbortSignal} signal ends the request
 */
export function predict({ bytes, type }, model, signal) {
  const query = new URLSearchParams({ threshold: "0", output: "rle" });
  if (model) query.set("model", model);
  return ask(`predict?${query}`, { method: "POST", body: bytes, headers: { "Content-Type": type }, signal });
}

export function useKey(text) {
  key = text;
}

async function ask(path, options = {}) {
  let response;
  const headers = key ? { ...options.headers, "X-API-Key": key } : options.headers;
  try {
    response = await fetch(new URL(path, V1), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw navigator.onLine
      ? new Trouble("The service does not answer", "It may have been stopped, or is just starting.", LATER)
      : new Trouble("You are offline", "The picture is still here: try again once you are back.", LATER);
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (!response.ok) throw refusal(response, answer?.error);
  if (!answer) throw new Trouble("The service gave an odd answer", "Is something else at this address?", LATER);
  return answer;
}

function refusal(response, reason) {
  const { status } = response;
  const words = sentence(reason);
  if (status === 503) {
    const seconds = Number(response.headers.get("Retry-After")) || 0;
    const wait = seconds > 1 ? `Please try again in ${seconds} seconds.` : "Please try again in a moment.";
    return new Trouble("The service is busy", `Others came first. ${wait}`, LATER);
  }
  if (status === 404) return new Trouble("That model is gone", "Please load this page again.");
  if (status === 408) return new Trouble("The picture arrived too slowly", "A smaller one gets through.", LATER);
  if (status === 504) return new Trouble("That took too long", "A smaller picture may help.", LATER);
  if (status === 413) return new Trouble("That picture is too large", words || "Please send a smaller copy.");
  if (status === 415) return new Trouble("The service cannot read this format", "JPEG, PNG and WebP pictures work.");
  if (status === 401 || status === 403) {
    const wrong = key ? "It did not accept this one." : "Whoever runs it has given it to those who may use it.";
    return new Trouble("This service asks for a key", wrong, { again: true, key: true });
  }
  if (status === 400 || status === 422) return new Trouble("The service could not use that picture", words);
  return new Trouble("Something went wrong in the service", words || `It answered ${status}.`, LATER);
}

function sentence(reason) {
  if (typeof reason !== "string" || !reason) return "";
  const text = reason.charAt(0).toUpperCase() + reason.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
