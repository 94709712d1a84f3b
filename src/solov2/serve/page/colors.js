/**
 * Colours that differ as far as they can from those shortly before; the first ones are always the same, and the same
 * as in the pictures of `solov2 predict`. Hues advance by the golden angle at steps of lightness, in OKLCH
 * (Ottosson, "A perceptual color space for image processing", 2020).
 */

const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));
const FIRST_HUE = 0.5;
const LIGHTNESS_STEPS = [0.71, 0.6, 0.8];
const CHROMA = 0.19;
const CHROMA_STEPS = 19;

/** The colour of a place in the list: {r, g, b} 0..255, as CSS text, as a pixel, and black or white to write on it. */
export function colorOf(index) {
  const lightness = LIGHTNESS_STEPS[index % LIGHTNESS_STEPS.length];
  const hue = FIRST_HUE + GOLDEN_ANGLE * index;
  let linear = [0, 0, 0];
  for (let step = CHROMA_STEPS; step >= 0; step--) {
    linear = linearRgb(lightness, (CHROMA * step) / CHROMA_STEPS, hue);
    if (linear.every((value) => value >= 0 && value <= 1)) break; // the most vivid that a screen can show
  }
  const [r, g, b] = linear.map((value) => Math.round(255 * encode(value)));
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return {
    r,
    g,
    b,
    css: `rgb(${r} ${g} ${b})`,
    pixel: pixelOf(r, g, b),
    ink: contrast(luminance, 1) > contrast(luminance, 0.0056) ? "#fff" : "#111", // the one that is easier to read
  };
}

function contrast(one, other) {
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}

function pixelOf(r, g, b) {
  return new Uint32Array(Uint8Array.of(r, g, b, 255).buffer)[0]; // in the machine's own byte order
}

function encode(value) {
  return value <= 0.0031308 ? 12.92 * value : 1.055 * Math.max(value, 0) ** (1 / 2.4) - 0.055;
}

function linearRgb(lightness, chroma, hue) {
  const [a, b] = [chroma * Math.cos(hue), chroma * Math.sin(hue)];
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ];
}
