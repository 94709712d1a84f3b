#!/usr/bin/env python3
"""Makes the shipped weights to start training from, of NanoDet-Plus-m's arrays and a folder of pictures.

    scripts/make_pretrained.py shufflenetv2_1.0x_nanodet_plus_m.npz PICTURES OUT.safetensors

The pictures, any everyday ones, give the batch norms their statistics; they do not change what the
network computes. Kept are backbone, neck and category towers, and the towers' copies for kernels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from solov2.build import build_model
from solov2.config import load_config
from solov2.config.schema import NormalizeConfig
from solov2.data.collate import collate, normalize
from solov2.data.image import read_image
from solov2.data.transforms import Resize, Sample
from solov2.weights.coco_classes import COCO_CATEGORIES
from solov2.weights.files import WeightsFile, write_weights
from solov2.weights.nanodet import load_nanodet, rebuild_batch_norm

PICTURES = 256
SIZE = Resize((416, 416))
ABOUT = {
    "source": "NanoDet-Plus-m (RangiLyu/nanodet), trained on COCO detection: backbone, neck, category towers",
    "license": "Apache-2.0",
}
RANDOM = ("mask_branch.", "fpn.finest.", "grid_head.kernel_output.")
"""What the detector has nothing for."""


def pictures(folder: Path) -> Iterator[torch.Tensor]:
    """Normalised pictures, one at a time."""
    rng = np.random.default_rng(0)
    numbers = NormalizeConfig()
    for path in sorted(folder.iterdir())[:PICTURES]:
        batch = collate([SIZE(Sample.of_image(read_image(path)), rng)], with_targets=False)
        yield normalize(batch.images, batch.frames, numbers.mean, numbers.std)


def main(arrays: str, folder: str, target: str) -> None:
    """Converts, rebuilds batch norm and writes the file."""
    network = build_model(load_config("solov2_nano_coco", ["freeze=[]"])).eval()
    load_nanodet(network, Path(arrays))
    rebuild_batch_norm(network, pictures(Path(folder)))
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(RANDOM)}
    write_weights(Path(target), WeightsFile(state, categories=COCO_CATEGORIES, about=ABOUT), half=True)
    print(f"{target}: {Path(target).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
