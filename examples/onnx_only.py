"""An exported model without this package: ONNX Runtime, NumPy and Pillow alone.

solov2 export -m nuclei -o nuclei.onnx
python examples/onnx_only.py nuclei.onnx examples/nuclei_fluorescence.jpg overlay.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def target_size(width, height, transforms):
    """The size that the model's recipe gives a picture."""
    for step in transforms:
        if step["name"] == "Resize":
            target = step["args"]["target_size"]
            if not step["args"].get("keep_ratio", True):
                return target[1], target[0]
            scale = max(min(target) / min(width, height), step["args"].get("min_scale") or 0.0)
            scale = min(scale, max(target) / max(width, height))
            width, height = (max(int(scale * side + 0.5), 1) for side in (width, height))
    return width, height


def main(model, source, overlay):
    """Prints what the model finds in a picture, and draws it."""
    session = onnxruntime.InferenceSession(model)
    about = json.loads(session.get_modelmeta().custom_metadata_map["solov2_export"])
    picture = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    width, height = target_size(*picture.size, about["transforms"])
    # Bilinear without antialiasing, which Pillow's resize does not offer.
    scale = (picture.width / width, 0, 0, 0, picture.height / height, 0)
    resized = picture.transform((width, height), Image.Transform.AFFINE, scale, Image.Resampling.BILINEAR)
    padded_hw = about["size"] or [-(-side // about["pad_stride"]) * about["pad_stride"] for side in (height, width)]
    images = np.zeros((1, *padded_hw, 3), np.uint8)
    images[0, :height, :width] = resized
    inputs = {"images": images, "sizes": np.array([[height, width]], np.int64)}
    if about.get("masks") == "picture":
        inputs["originals"] = np.array([[picture.height, picture.width]], np.int64)
    count, scores, labels, masks = session.run(["count", "scores", "labels", "masks"], inputs)
    if about.get("calibration"):  # raw scores, and the probabilities of being right that stand for them
        scores = np.interp(scores, *zip(*about["calibration"], strict=True))
    drawn = np.array(picture, np.float32)
    colors = np.random.default_rng(0).uniform(60, 255, (int(count[0]), 3))
    for score, label, mask, color in zip(scores[0], labels[0], masks[0], colors, strict=False):
        if score < (about["score_threshold"] or 0.5):
            break
        # From the mask grid to the padded input, cut to the picture in it, then to the picture's own size.
        probs = Image.fromarray(mask).resize(padded_hw[::-1], Image.Resampling.BILINEAR).crop((0, 0, width, height))
        pixels = np.array(probs.resize(picture.size, Image.Resampling.BILINEAR)) > about["mask_threshold"]
        drawn[pixels] = drawn[pixels] / 2 + color / 2
        print(f"{about['classes'][label] if about['classes'] else label}  {score:.3f}  {pixels.sum()} pixels")
    Image.fromarray(drawn.astype(np.uint8)).save(overlay)


if __name__ == "__main__":
    main(*sys.argv[1:4])
