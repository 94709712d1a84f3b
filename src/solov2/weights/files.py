"""Weights files: safetensors with everything that is needed to use them, written atomically.

Besides the tensors a file holds one JSON text under the metadata key ``solov2``: format version,
configuration, classes, score threshold and free text about data and licence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from solov2.atomic import write_atomically
from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.version import __version__

METADATA_KEY = "solov2"
FORMAT_VERSION = 1
WEIGHTS_SUFFIX = ".safetensors"
CHECKPOINT_SUFFIX = ".ckpt"


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file says.

    Attributes:
        state: tensors by name, float32.
        config: the resolved configuration as plain values; empty for a bare backbone.
        categories: the classes by label; empty for a bare backbone.
        score_threshold: the score from which a person should trust an instance, 0..1.
        about: free text by topic, such as data and licence.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    categories: tuple[Category, ...] = ()
    score_threshold: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    def metadata(self) -> dict[str, Any]:
        """Everything but the tensors, as plain values."""
        return {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "config": dict(self.config),
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
            "score_threshold": self.score_threshold,
            "about": dict(self.about),
        }


def write_weights(path: Path, weights: WeightsFile, *, half: bool = False) -> None:
    """Writes a weights file; an interrupted write leaves the old file as it was.

    Args:
        path: ending in ``.safetensors``; its folder is made.
        weights: what to write.
        half: store convolution weights as float16. Norms and biases stay float32: they are small,
            and running variances can leave float16's range.
    """
    tensors = {
        name: _stored(tensor, half).contiguous().cpu()
        for name, tensor in weights.state.items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = {METADATA_KEY: json.dumps(weights.metadata())}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def _stored(tensor: Tensor, half: bool) -> Tensor:
    return tensor.half() if half and tensor.dim() > 1 else tensor


def read_weights(path: Path) -> WeightsFile:
    """Reads a weights file, or the weights inside a training checkpoint.

    Raises:
        WeightsError: if it is missing, damaged or of another kind.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a {WEIGHTS_SUFFIX} or {CHECKPOINT_SUFFIX} file")
    return _read_checkpoint(path) if path.suffix == CHECKPOINT_SUFFIX else _read_safetensors(path)


def _read_safetensors(path: Path) -> WeightsFile:
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            state = {name: _as_float(stream.get_tensor(name)) for name in stream.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from None
    if METADATA_KEY not in metadata:
        raise WeightsError(
            f"{path}: has no {METADATA_KEY!r} metadata; expected weights written by this package "
            "(solov2 train writes model_final.safetensors)"
        )
    return _weights_of(path, state, lambda: json.loads(metadata[METADATA_KEY]))


def _weights_of(path: Path, state: Mapping[str, Tensor], metadata: Callable[[], Mapping[str, Any]]) -> WeightsFile:
    try:
        return weights_from(state, metadata())
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({error!r})") from None


def weights_from(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> WeightsFile:
    """Puts tensors and the plain values of :meth:`WeightsFile.metadata` together again.

    Raises:
        WeightsError: if a newer version of the package wrote them.
    """
    if metadata["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"the weights are of format {metadata['format_version']}, written by solov2 {metadata['package_version']}; "
            f"this is solov2 {__version__}, which reads up to format {FORMAT_VERSION}: upgrade it"
        )
    return WeightsFile(
        state=state,
        config=metadata["config"],
        categories=tuple(Category(record["id"], record["name"]) for record in metadata["categories"]),
        score_threshold=metadata["score_threshold"],
        about=metadata["about"],
    )


def _read_checkpoint(path: Path) -> WeightsFile:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        metadata, ema = checkpoint[METADATA_KEY], checkpoint.get("ema")
        state = ema["weights"] if ema else _without_prefix(checkpoint["state_dict"], "model.")
    except Exception as error:  # torch.load raises a dozen kinds for damaged files
        # PyTorch explains over many lines how to load it regardless, which nobody should.
        reason = type(error).__name__ if "\n" in str(error) else repr(error)
        raise WeightsError(f"{path}: not a readable checkpoint of this package ({reason})") from None
    return _weights_of(path, {name: _as_float(tensor) for name, tensor in state.items()}, lambda: metadata)


def _without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _as_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.is_floating_point else tensor


def shipped_names() -> Sequence[str]:
    """Names of the weights inside the package."""
    return sorted([*ALIASES, *(path.stem for path in SHIPPED.glob(f"*{WEIGHTS_SUFFIX}"))])


def find_weights(name_or_path: str | Path) -> Path:
    """The file of a name or a path, which may come without its suffix; a file wins over a name.

    Raises:
        WeightsError: if there is neither; names the shipped weights.
    """
    name = str(name_or_path)
    for path in (Path(name).expanduser(), Path(f"{name}{WEIGHTS_SUFFIX}").expanduser()):
        if path.is_file():
            return path
    if "://" in name:
        raise WeightsError(
            f"{name}: this version opens no network connection and reads only its own weights files. To train without "
            "it, unfreeze the backbone: -o pretrain_weights=null ResNet.freeze_at=-1 ResNet.freeze_norm=false"
        )
    shipped = SHIPPED / f"{ALIASES.get(name, name)}{WEIGHTS_SUFFIX}"
    if shipped.is_file():
        return shipped
    raise WeightsError(
        f"{name!r} is neither a file nor the name of weights in this package; "
        f"the names are {', '.join(shipped_names())}"
    )


SHIPPED = Path(__file__).parent / "shipped"
ALIASES = {"nuclei": "solov2_nano_nuclei"}
