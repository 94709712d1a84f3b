"""Lists of published names, tensors to go with them, and small files of every kind."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAMES = Path(__file__).parent / "names"

Shapes = dict[str, tuple[int, ...]]

PADDLE_HEAD: dict[str, tuple[int, ...]] = {
    "solov2_head.bbox_head.solo_cate.weight": (3, 4, 3, 3),
    "solov2_head.bbox_head.solo_cate.bias": (3,),
}
AUTHORS_HEAD: dict[str, tuple[int, ...]] = {
    "bbox_head.solo_cate.weight": (3, 4, 3, 3),
    "bbox_head.solo_cate.bias": (3,),
}
OUR_HEAD: dict[str, tuple[int, ...]] = {
    "grid_head.category_output.weight": (3, 4, 3, 3),
    "grid_head.category_output.bias": (3,),
}


def listed(name: str) -> Shapes:
    """Names and shapes of a list in ``names/``."""
    rows = (line.split("\t") for line in (NAMES / f"{name}.txt").read_text(encoding="ascii").splitlines())
    return {row[0]: () if row[1] == "scalar" else tuple(int(side) for side in row[1].split("x")) for row in rows}


def numbered(shapes: Shapes) -> dict[str, Tensor]:
    """A tensor per name, filled with its own number; they take no memory."""
    return {name: torch.tensor(float(number)).expand(shape) for number, (name, shape) in enumerate(shapes.items())}


@cache
def recipe_shapes(recipe: str) -> Shapes:
    """Names and shapes of the tensors of a recipe's network."""
    from solov2 import build_model, load_config
    from solov2.weights.importing import shapes_of

    with torch.device("meta"):
        return shapes_of(build_model(load_config(recipe)))


def arrays(shapes: Shapes, seed: int = 0) -> dict[str, Any]:
    """Random float32 arrays."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """The same numbers as :func:`arrays`."""
    return {name: torch.from_numpy(array) for name, array in arrays(shapes, seed).items()}


def write_pickle(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def write_torch(path: Path, content: Any, *, legacy: bool = False) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def authors_checkpoint(state: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "meta": {"CLASSES": ("disc", "traffic_light", "bar"), "epoch": 36, "time": "now"},
        "state_dict": OrderedDict(state),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01}]},
    }


def python2_pickle(blobs: dict[str, Any]) -> bytes:
    """A pickle as Python 2 and NumPy 1 wrote it: text and the bytes of arrays are both BINSTRING."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def array(value: Any) -> bytes:
        shape = b"(" + b"".join(b"J" + struct.pack("<i", side) for side in value.shape) + b"t"
        kind = (
            b"cnumpy\ndtype\n("
            + text(b"f4")
            + b"K\x00K\x01tR(K\x03"
            + text(b"<")
            + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        )
        made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
        return made + b"(K\x01" + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"

    entries = b"".join(text(name.encode()) + array(value) for name, value in blobs.items())
    return b"\x80\x02}(" + text(b"blobs") + b"}(" + entries + b"uu."
