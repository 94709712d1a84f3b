/** Files become pictures that the service takes: looked at, turned into a usual format, shrunk where they are huge. */

import { Trouble } from "./trouble.js";

const MOST_PIXELS = 12_000_000; // more of them are shrunk: they cost minutes of upload and add nothing
const MOST_BYTES = 24_000_000; // a larger file is packed anew
const QUALITY = 0.92; // of the JPEG that is then sent
const SENT_AS_IS = new Set(["image/jpeg", "image/png", "image/webp", "image/bmp"]); // a GIF would move under its masks

/**
 * Opens a file as a picture, upright as its EXIF orientation says.
 *
 * @param {Blob} file of a format that the browser reads
 * @returns {Promise<{bytes: ArrayBuffer, type: string, url: string, width: number, height: number,
 *     name: string, note: string}>} `bytes` of the `type` are what to send, `url` shows them until `closePicture`,
 *     `note` says what was done to the file
 * @throws {Trouble} where it is no picture
 */
export async function openPicture(file, name = file.name || "picture") {
  if (!file.size) throw new Trouble("That file is empty", `There is nothing in ${name}. Please choose another.`);
  const url = URL.createObjectURL(file);
  let kept = false;
  try {
    const image = await decoded(url, file, name);
    const { naturalWidth: width, naturalHeight: height } = image;
    const share = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
    if (share < 1 || file.size > MOST_BYTES || !SENT_AS_IS.has(file.type)) return await redrawn(image, share, name);
    const bytes = await file.arrayBuffer(); // now: later the file may be gone, and "Try again" with it
    kept = true;
    return { bytes, type: file.type, url, width, height, name, note: "" };
  } finally {
    if (!kept) URL.revokeObjectURL(url);
  }
}

export function closePicture(picture) {
  if (picture) URL.revokeObjectURL(picture.url);
}

async function decoded(url, file, name) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    throw unreadable(file, name);
  }
  if (!image.naturalWidth || !image.naturalHeight) throw unreadable(file, name);
  return image;
}

async function redrawn(image, share, name) {
  const [fullWidth, fullHeight] = [image.naturalWidth, image.naturalHeight];
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(fullWidth * share));
  canvas.height = Math.max(1, Math.floor(fullHeight * share));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // a JPEG has no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
  if (!blob) throw new Trouble("That picture is too large", `The browser cannot hold ${name}. A smaller copy works.`);
  const { width, height } = canvas;
  const note = share < 1 ? `Shrunk from ${fullWidth} × ${fullHeight} before sending.` : "Sent as JPEG.";
  const bytes = await blob.arrayBuffer();
  return { bytes, type: blob.type, url: URL.createObjectURL(blob), width, height, name, note };
}

function unreadable(file, name) {
  const kind = `${file.type} ${name}`.toLowerCase();
  if (/hei[cf]/.test(kind)) {
    return new Trouble(
      "This browser cannot open HEIC photos",
      "Phones save them to spare room. Please export the photo as JPEG, or take a screenshot of it, and send that.",
    );
  }
  if (/tiff?\b/.test(kind)) {
    return new Trouble("This browser cannot open TIFF files", "Please save the picture as PNG, which loses nothing.");
  }
  if (/video\/|\.(mp4|mov|webm|avi|mkv)\b/.test(kind)) {
    return new Trouble("That is a video", "This page looks at single pictures. A screenshot of one frame will do.");
  }
  if (/pdf/.test(kind)) {
    return new Trouble("That is a PDF", "Please save the page you mean as PNG or JPEG and send that.");
  }
  const damaged = file.type.startsWith("image/");
  return new Trouble(
    damaged ? "That picture cannot be opened" : "That does not look like a picture",
    damaged
      ? `${name} seems to be damaged, or of a kind this browser does not know. JPEG, PNG and WebP work everywhere.`
      : `${name} is something else. JPEG, PNG and WebP pictures work.`,
  );
}
