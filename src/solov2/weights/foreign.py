"""Weights files of other frameworks: recognised by what they contain, read, and said whose they are.

``.pdparams`` of PaddleDetection and PaddleClas, ``.pth`` of the authors, mmdetection, AdelaiDet and torchvision,
``.pkl`` of detectron2. :mod:`solov2.weights.importing` turns them into our tensors.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solov2.errors import WeightsError
from solov2.weights.files import (
    CHECKPOINT_SUFFIX,
    METADATA_KEY,
    WEIGHTS_SUFFIX,
    WeightsFile,
    counted,
    looks_like_safetensors,
    metadata_of,
    naming,
    read_bytes,
    read_safetensors,
    read_tensors,
    weights_of_checkpoint,
)
from solov2.weights.names import Framework, Layout, foreign_names
from solov2.weights.pickled import Budget, PickledArray, Unread, as_text, reason_of
from solov2.weights.pickles import read_pickle
from solov2.weights.torch_files import ZIP_MAGIC, TensorRef, TorchFile, is_legacy, read_torch

PICKLE_MAGIC = b"\x80"
LONGEST_NAME = 200
"""Characters in a tensor's name."""

PADDLE_PARAMETER_NAMES = "StructuredToParameterName@@"
PADDLE_SLICES = "UnpackBigParamInfor@@"
BGR_FRAMEWORKS = frozenset({"detectron2"})

MARKS: tuple[tuple[str, Framework], ...] = (
    (r"^(grid_head\.|mask_branch\.|fpn\.laterals\.)|^(backbone\.)?stem(\.\d)?\.norm\.weight$", "solov2"),
    (r"^(solov2_head\.|neck\.fpn_(inner_)?res\d)|(^|\.)res\d[a-z]\d*\.branch2[abc]\.", "paddledetection"),
    (r"^(backbone\.)?blocks\.\d+\.conv0\.conv\.weight$", "paddleclas"),
    (r"^(ins_head\.|backbone\.bottom_up\.)|^(stem\.conv1|res\d\.\d+\.conv1)\.", "detectron2"),
    (r"^mask_head\.(mask_feature_head|kernel_convs|conv_kernel)\.", "mmdetection"),
    (r"^(bbox_head\.(solo_|kernel_convs)|mask_feat_head\.)", "solo"),
    (r"^(backbone\.)?layer\d\.\d+\.conv1\.weight$", "torchvision"),
)
"""The first that one of the names shows decides."""

DETECTOR = re.compile(r"(^|\.)(\w*head\w*|proposal_generator|rpn|neck|fpn\w*)\.")
"""In the name of a part that backbones do not have."""

CAFFE2_LAYER = re.compile(r"^(conv1|res_conv1|res(\d)_(\d+)_branch(1|2a|2b|2c))_(w|bn_s|bn_b|bn_rm|bn_riv)$")
CAFFE2_LAYERS = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
CAFFE2_TENSORS = {
    "w": "weight",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
}


@dataclass(frozen=True)
class ForeignWeights:
    """What another framework's file says.

    Attributes:
        framework: whose names the tensors have.
        tensors: by their names there, as they stand in the file.
        path: of the file.
        class_names: the classes by label; empty where the file does not name them.
        bgr: its network takes BGR, 0..255 minus the mean, instead of normalised RGB.
    """

    framework: Framework
    tensors: Mapping[str, Tensor]
    path: Path
    class_names: tuple[str, ...] = ()
    bgr: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is a detector of some kind; not a bare backbone."""
        return any(DETECTOR.search(name) for name in self.tensors)

    def count_classes(self) -> int | None:
        """Width of the category layer; None without a head of SOLOv2."""
        names = foreign_names("grid_head.category_output.bias", self.framework, Layout())
        return next((self.tensors[name].numel() for name in names if name in self.tensors), None)


def read_any(path: Path) -> WeightsFile | ForeignWeights:
    """Reads weights of any kind; the content decides which, not the name.

    Raises:
        WeightsError: if the file is missing, damaged or holds no weights of a known kind.
    """
    if looks_like_safetensors(path):
        return _of_safetensors(path)
    data = read_bytes(path)
    with naming(path):
        if data.startswith(ZIP_MAGIC) or is_legacy(data):
            return _of_torch(read_torch(data), path)
        if data.startswith(PICKLE_MAGIC) or path.suffix in (".pdparams", ".pkl"):
            return _of_pickle(read_pickle(io.BytesIO(data), Budget(len(data))), path)
    if path.suffix == WEIGHTS_SUFFIX:
        return _of_safetensors(path)  # which says what is wrong with it
    with naming(path):
        raise WeightsError(
            f"not a weights file; expected {WEIGHTS_SUFFIX} or {CHECKPOINT_SUFFIX} of this package, .pdparams of "
            "PaddleDetection, .pth of PyTorch or .pkl of detectron2"
        )


def _of_safetensors(path: Path) -> WeightsFile | ForeignWeights:
    if METADATA_KEY in metadata_of(path):
        return read_safetensors(path)
    tensors = read_tensors(path)
    with naming(path):
        return _foreign(tensors, path)


def _of_torch(file: TorchFile, path: Path) -> WeightsFile | ForeignWeights:
    content = file.content
    if isinstance(content, dict) and METADATA_KEY in content:
        return weights_of_checkpoint(file)

    def tensor_of(name: str, value: object) -> Tensor:
        return file.tensor(value) if isinstance(value, TensorRef) else _tensor_of_array(name, value)

    return _of_mapping(content, path, tensor_of)


def _of_pickle(content: object, path: Path) -> ForeignWeights:
    if isinstance(content, dict):
        content = _with_slices_joined(
            {name: value for name, value in content.items() if name != PADDLE_PARAMETER_NAMES}
        )
    return _of_mapping(content, path, _tensor_of_array)


def _of_mapping(content: Any, path: Path, tensor_of: Callable[[str, object], Tensor]) -> ForeignWeights:
    meta, author = None, None
    for _ in range(3):  # a state may stand in a checkpoint, and that in another
        if not isinstance(content, dict):
            whole = "; of a whole model save model.state_dict() instead" if isinstance(content, Unread) else ""
            raise WeightsError(f"holds {_kind(content)}; expected tensors by name{whole}")
        meta, author = content.get("meta", meta), content.get("__author__", author)
        inner = next((content[key] for key in ("state_dict", "model", "blobs") if _is_mapping(content.get(key))), None)
        if inner is None:
            break
        content = inner
    entries = {name: value for name, value in content.items() if _is_entry(name, value)}
    prefix = "module." if all(name.startswith("module.") for name in entries) else ""
    names = {name: name.removeprefix(prefix) for name in entries}
    if any(CAFFE2_LAYER.match(name) for name in names.values()):
        names = {name: caffe2_name(plain) for name, plain in names.items()}
    if len(set(names.values())) < len(names):
        raise WeightsError("two of its tensors have one name")
    tensors = {names[name]: tensor_of(name, value) for name, value in entries.items()}
    return _foreign(tensors, path, _class_names(meta), author)


def _kind(value: object) -> str:
    kind = value.kind[:LONGEST_NAME] if isinstance(value, Unread) else type(value).__name__
    if not kind.isprintable():
        return "an object without a readable name"
    return f"{'an' if kind[:1] in 'aeiouAEIOU' else 'a'} {kind}"


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def _is_entry(name: object, value: object) -> bool:
    # Beside its tensors a state may hold text and numbers about itself.
    return isinstance(name, str) and not isinstance(value, str | int | float | None) and not name.startswith("__")


def _tensor_of_array(name: str, value: object) -> Tensor:
    if isinstance(value, tuple) and len(value) == 2:  # Paddle's: its own name of the tensor, and the tensor
        value = value[1]
    if not isinstance(value, PickledArray):
        raise WeightsError(f"{name[:LONGEST_NAME]!r} is {_kind(value)}; expected an array of numbers")
    if value.array is None:
        raise WeightsError(f"{name[:LONGEST_NAME]!r} is an array of objects; expected one of numbers")
    # What was read from a pickle cannot be written to, and may start at any byte.
    return torch.from_numpy(value.owned())


def _with_slices_joined(content: dict[str, object]) -> dict[str, object]:
    # Paddle wrote arrays of more than a gibibyte in slices of the flattened array.
    joined = dict(content)
    records = joined.pop(PADDLE_SLICES, None)
    if records is None:
        return joined
    try:
        for name, record in records.items():  # type: ignore[attr-defined]
            if not record["slices"]:
                raise ValueError("no slices")
            parts = [joined.pop(as_text(part)).array for part in record["slices"]]  # type: ignore[attr-defined]
            joined[name] = PickledArray(np.concatenate(parts).reshape(tuple(record["OriginShape"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"damaged (its {PADDLE_SLICES} does not fit its arrays: {reason_of(error)}); get it again"
        ) from None
    return joined


def caffe2_name(name: str) -> str:
    """detectron2's name for a tensor of a Caffe2 backbone; a classifier or a momentum keeps its own."""
    match = CAFFE2_LAYER.match(name)
    if match is None:
        return name
    stage, block, branch, tensor = match[2], match[3], match[4], CAFFE2_TENSORS[match[5]]
    return f"res{stage}.{block}.{CAFFE2_LAYERS[branch]}.{tensor}" if stage else f"stem.conv1.{tensor}"


def _class_names(meta: Any) -> tuple[str, ...]:
    if not isinstance(meta, dict):
        return ()
    dataset = meta.get("dataset_meta")
    names = meta.get("CLASSES", dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, dict) else None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) and name.isprintable() for name in names):
        return tuple(names)
    return ()


def _foreign(
    tensors: Mapping[str, Tensor], path: Path, class_names: tuple[str, ...] = (), author: object = None
) -> ForeignWeights:
    if not all(name.isprintable() and len(name) <= LONGEST_NAME for name in tensors):
        raise WeightsError("the names of its tensors are no readable text; expected weights")
    names = "\n".join(tensors)
    for mark, framework in MARKS:
        if re.search(mark, names, re.MULTILINE):
            # detectron2's copy of torchvision's backbones takes their normalised RGB.
            bgr = framework in BGR_FRAMEWORKS and author != "torchvision"
            return ForeignWeights(framework, tensors, path, class_names, bgr)
    shown = ", ".join(list(tensors)[:3]) or "none"
    raise WeightsError(
        f"holds {counted(len(tensors), 'tensor')} with names of no known framework ({shown:.120}); expected a "
        "SOLOv2 or a ResNet of PaddleDetection, PaddleClas, the authors, mmdetection, AdelaiDet, detectron2, "
        "torchvision or this package"
    )
