"""Weights files: safetensors with everything that is needed to use them, written atomically.

Besides the tensors a file holds one JSON text under the metadata key ``solov2``: format version,
configuration, classes, score threshold, calibration of scores and free text about data and licence.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from solov2.atomic import write_atomically
from solov2.errors import WeightsError
from solov2.structures import Category
from solov2.version import __version__
from solov2.weights.calibration import Knots, read_calibration
from solov2.weights.pickled import as_text, check_tree, reason_of
from solov2.weights.torch_files import TensorRef, TorchFile, read_torch

METADATA_KEY = "solov2"
FORMAT_VERSION = 1
WEIGHTS_SUFFIX = ".safetensors"
CHECKPOINT_SUFFIX = ".ckpt"
SUFFIXES = (WEIGHTS_SUFFIX, CHECKPOINT_SUFFIX, ".pdparams", ".pth", ".pkl")
"""What a path may come without, tried in this order."""

LARGEST_FILE = 8 << 30
"""Bytes; a checkpoint of the largest network with its optimizer has a tenth of that."""

LARGEST_HEADER = 100_000_000
"""Bytes; safetensors themselves allow no more."""


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file says.

    Attributes:
        state: tensors by name, float32.
        config: the resolved configuration as plain values; empty for a bare backbone.
        categories: the classes by label; empty for a bare backbone.
        score_threshold: the score from which a person should trust an instance, 0..1; a calibrated one where there
            is a calibration.
        about: free text by topic, such as data and licence.
        trained_on: fingerprints of the training pictures (:mod:`solov2.data.fingerprints`); empty if unknown.
        calibration: raw scores and the probabilities of being right that stand for them, both rising strictly, from
            raw 0 to raw 1 (:mod:`solov2.coco_metrics.calibration`); empty where scores are to stay as they are.
    """

    state: Mapping[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    categories: tuple[Category, ...] = ()
    score_threshold: float | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    trained_on: str = ""
    calibration: Knots = ()

    def metadata(self) -> dict[str, Any]:
        """Everything but the tensors, as plain values."""
        return {
            "format_version": FORMAT_VERSION,
            "package_version": __version__,
            "config": dict(self.config),
            "categories": [{"id": category.id, "name": category.name} for category in self.categories],
            "score_threshold": self.score_threshold,
            "about": dict(self.about),
            "trained_on": self.trained_on,
            "calibration": [list(pair) for pair in self.calibration],
        }


def write_weights(path: Path, weights: WeightsFile, *, half: bool = False) -> None:
    """Writes a weights file; an interrupted write leaves the old file as it was.

    Args:
        path: ending in ``.safetensors``; its folder is made.
        weights: what to write.
        half: store convolution weights as float16. Norms and biases stay float32: they are small,
            and running variances can leave float16's range.

    Raises:
        WeightsError: if it cannot be written.
    """
    tensors = {
        name: _stored(tensor, half).contiguous().cpu()
        for name, tensor in weights.state.items()
        if not name.endswith("num_batches_tracked")
    }
    metadata = {METADATA_KEY: json.dumps(weights.metadata())}
    try:
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise WeightsError(f"{path}: cannot be written ({reason}); make room, or choose another place") from None


def _stored(tensor: Tensor, half: bool) -> Tensor:
    return tensor.half() if half and tensor.dim() > 1 else tensor


def read_weights(path: Path) -> WeightsFile:
    """Reads a weights file, or the weights inside a training checkpoint.

    Raises:
        WeightsError: if it is missing, damaged or of another kind.
    """
    check_readable(path)
    return _read_checkpoint(path) if path.suffix == CHECKPOINT_SUFFIX else read_safetensors(path)


def check_readable(path: Path) -> None:
    """Looks whether there is a file that can be read.

    Raises:
        WeightsError: if there is none, it is a folder, or it is too large for weights.
    """
    try:
        if path.is_dir():
            raise WeightsError(f"{path}: is a folder; expected a weights file, such as one of the files in it")
        if not path.is_file():
            raise WeightsError(f"{path}: no such file; expected a weights file ({', '.join(SUFFIXES)})")
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    if size > LARGEST_FILE:
        raise WeightsError(f"{path}: has {size} bytes; weights have {LARGEST_FILE} at most")


def read_bytes(path: Path) -> bytes:
    """The whole content of a file.

    Raises:
        WeightsError: as :func:`check_readable`.
    """
    check_readable(path)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise WeightsError(f"{path}: cannot be read ({error!r})") from None


def metadata_of(path: Path) -> Mapping[str, str]:
    """The metadata of a safetensors file.

    Raises:
        WeightsError: if it is missing or damaged.
    """
    with _opened(path) as stream:
        return stream.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as stream:
            yield stream
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({reason_of(error)})") from None


def version_of(path: Path) -> str | None:
    """Version of the package that wrote a weights file; None if it is damaged or of another kind."""
    try:
        return str(json.loads(metadata_of(path)[METADATA_KEY])["package_version"])
    except (WeightsError, KeyError, RecursionError, TypeError, ValueError):
        return None


def looks_like_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes with a header's length, and a header in JSON.

    Raises:
        WeightsError: as :func:`check_readable`.
    """
    check_readable(path)
    with path.open("rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LARGEST_HEADER


def read_safetensors(path: Path) -> WeightsFile:
    """Reads a weights file, whatever its name ends in.

    Raises:
        WeightsError: if it is missing, damaged or of another kind.
    """
    metadata = metadata_of(path)
    if METADATA_KEY not in metadata:
        raise WeightsError(
            f"{path}: has no {METADATA_KEY!r} metadata; expected weights written by this package "
            "(solov2 train writes model_final.safetensors)"
        )
    state = {name: _as_float(tensor) for name, tensor in read_tensors(path).items()}
    with naming(path):
        return _weights_of(state, lambda: json.loads(metadata[METADATA_KEY]))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whoever wrote it.

    Raises:
        WeightsError: if it is missing or damaged.
    """
    with _opened(path) as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  # no mapping


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless there is one."""
    return f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _weights_of(state: Mapping[str, Tensor], metadata: Callable[[], Mapping[str, Any]]) -> WeightsFile:
    try:
        values = metadata()
        check_tree(values)
        return weights_from(state, values)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise WeightsError(f"its metadata is damaged ({error!r})") from None


def weights_of_metadata(metadata: Mapping[str, Any]) -> WeightsFile:
    """What :meth:`WeightsFile.metadata` says, without the tensors.

    Raises:
        WeightsError: if it is damaged, or a newer version of the package wrote it.
    """
    return _weights_of({}, lambda: metadata)


def weights_from(state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> WeightsFile:
    """Puts tensors and the plain values of :meth:`WeightsFile.metadata` together again.

    Raises:
        WeightsError: if a newer version of the package wrote them, or their threshold or calibration is none.
    """
    if metadata["format_version"] > FORMAT_VERSION:
        raise WeightsError(
            f"the weights are of format {metadata['format_version']}, written by solov2 {metadata['package_version']}; "
            f"this is solov2 {__version__}, which reads up to format {FORMAT_VERSION}: upgrade it"
        )
    threshold = metadata["score_threshold"]
    if not isinstance(threshold, float | int | None):
        raise TypeError(f"score_threshold is a {type(threshold).__name__}")
    if threshold is not None and not 0 <= threshold <= 1:  # NaN too
        raise WeightsError(f"its score threshold is {threshold}; expected a score in 0..1; write the file anew")
    return WeightsFile(
        state=state,
        config=dict(metadata["config"].items()),
        categories=tuple(Category(int(record["id"]), as_text(record["name"])) for record in metadata["categories"]),
        score_threshold=threshold,
        about={as_text(topic): as_text(text) for topic, text in metadata["about"].items()},
        trained_on=as_text(metadata.get("trained_on", "")),
        calibration=read_calibration(metadata.get("calibration", ())),
    )


def _read_checkpoint(path: Path) -> WeightsFile:
    data = read_bytes(path)
    with naming(path):
        try:
            file = read_torch(data)
        except WeightsError as error:
            raise WeightsError(f"not a readable checkpoint of this package ({error})") from None
        return weights_of_checkpoint(file)


def weights_of_checkpoint(file: TorchFile) -> WeightsFile:
    """The weights inside a training checkpoint: the averaged ones if there are any.

    Raises:
        WeightsError: if it is damaged or none of this package.
    """
    try:
        metadata, ema = file.content[METADATA_KEY], file.content.get("ema")
        state = ema["weights"] if ema else _without_prefix(file.content["state_dict"], "model.")
        tensors = {name: _as_float(file.tensor(ref)) for name, ref in state.items()}
    except (AttributeError, KeyError, TypeError, WeightsError) as error:
        reason = error if isinstance(error, WeightsError) else repr(error)
        raise WeightsError(f"not a readable checkpoint of this package ({reason})") from None
    return _weights_of(tensors, lambda: metadata)


def _without_prefix(state: Mapping[str, TensorRef], prefix: str) -> dict[str, TensorRef]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _as_float(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.is_floating_point else tensor
