"""Prediction: pictures in, instances out, with everything a weights file knows."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from solov2.build import build_split_transforms, decode_options
from solov2.config import Config
from solov2.crumbs import without_crumbs
from solov2.data.collate import collate, normalize
from solov2.data.image import RGB, ImageLike, read_image
from solov2.data.transforms import LINEAR, Sample, resize_sample
from solov2.decoding import Chosen, choose
from solov2.errors import ConfigError
from solov2.model.compiling import CompiledNetwork
from solov2.model.folding import folded
from solov2.model.solov2 import SOLOv2
from solov2.opening import OpenedWeights, config_of, open_weights
from solov2.runtime.exported import ExportedModel, is_exported, open_exported
from solov2.runtime.interface import ONNX_SUFFIX
from solov2.score_curve import calibrated, least_raw
from solov2.structures import HW, Batch, Category, Instances, Predictions
from solov2.weights.files import naming, weights_of_metadata

DEFAULT_MODEL = "solov2_nano_coco"
PADDLEHUB_NAME = "solov2"
"""What PaddleHub calls its module; here it stands for a model."""

MODEL_VARIABLE = "SOLOV2_MODEL"
"""Names the model, or the file, that :data:`PADDLEHUB_NAME` stands for."""

DEFAULT_SCORE_THRESHOLD = 0.5
MAX_BATCH = 8
"""Pictures of one size that go through the network together."""


def load(
    model: str | Path = DEFAULT_MODEL, device: str = "auto", runtime: str = "auto", *, compiled: bool = False
) -> Predictor:
    """Loads a model to predict with.

    Args:
        model: a name of the zoo, or a file: weights or checkpoint of this package, or published weights of
            PaddleDetection, the authors, mmdetection or AdelaiDet; or an exported file, ``.onnx`` or ``.xml``. Names
            that are not in the package are downloaded the first time.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto": a GPU where there is one.
        runtime: what runs it: "torch" for weights; for exported files "onnxruntime" or "openvino"; "auto": as fits;
            "fastest": of those that fit, what takes least time with this file now.
        compiled: as for :class:`Predictor`.

    Raises:
        WeightsError: if there are no such weights, they cannot be had, or the file is damaged.
        ConfigError: if there is no such device, or the run time does not go with the file.
        MissingDependencyError: if the run time is not installed.

    Example:
        >>> import solov2
        >>> predictor = solov2.load("nuclei", device="cpu")
    """
    if is_exported(model):
        return _load_exported(Path(model), device, runtime)
    check_runtime(model, runtime)
    return predictor_of(open_weights(model), device, compiled=compiled)


def model_named(name: str | Path) -> str:
    """What a name stands for: ``solov2`` the default model, or that of ``SOLOV2_MODEL``; any other itself."""
    if str(name) != PADDLEHUB_NAME:
        return str(name)
    chosen = os.environ.get(MODEL_VARIABLE, "")
    return DEFAULT_MODEL if chosen in ("", PADDLEHUB_NAME) else chosen


def check_runtime(model: str | Path, runtime: str) -> None:
    """Looks whether a run time goes with weights, which PyTorch alone runs.

    Raises:
        ConfigError: if it does not.
    """
    if runtime not in ("auto", "torch", "fastest"):
        raise ConfigError(
            f"{model}: {runtime} runs exported files, and this is none; "
            f"write one first: solov2 export -m {model} -o model{ONNX_SUFFIX}"
        )


def predictor_of(opened: OpenedWeights, device: str = "auto", *, compiled: bool = False) -> Predictor:
    """A predictor with all that is known about opened weights; its network's batch norms are folded.

    Args:
        opened: the network is moved to the device.
        device: as for :func:`load`.
        compiled: as for :class:`Predictor`.

    Raises:
        ConfigError: if there is no such device.
    """
    weights = opened.weights
    return Predictor(
        opened.network,
        opened.config,
        weights.categories,
        weights.score_threshold,
        choose_device(device),
        weights.trained_on,
        calibration=weights.calibration,
        fold=True,
        compiled=compiled,
    )


def _load_exported(path: Path, device: str, runtime: str) -> Predictor:
    model = open_exported(path, device, runtime)
    with naming(path):
        weights = weights_of_metadata(model.metadata)
    return Predictor(
        model,
        config_of(weights, path),
        weights.categories,
        weights.score_threshold,
        trained_on=weights.trained_on,
        calibration=weights.calibration,
    )


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: if there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used ({reason}); expected auto, cpu, cuda, cuda:N or mps"
        ) from None
    return device


class Predictor:
    """A network with the settings and classes it was trained with.

    Args:
        model: the network; it is moved to ``device`` and put into evaluation mode. Or an exported model, which
            stays where it is.
        config: its configuration.
        categories: its classes by label.
        score_threshold: the model's own threshold, 0..1; 0.5 where it has none.
        device: where it runs.
        trained_on: fingerprints of the pictures it was trained on; empty if unknown.
        amp: run the network in half precision where that is safe (bfloat16, float16 on GPUs without it).
        calibration: raw scores and the probabilities of being right that stand for them, as a weights file has them;
            empty leaves scores as they are. The recipe's own thresholds are of raw scores, ``score_threshold`` is not.
        fold: run the network without its batch norms, as :mod:`solov2.model.folding` says; ``model`` stays as it is.
        compiled: let PyTorch's compiler make one program of the network, when it first runs and for every new kind
            of size: half a minute and more, for many pictures.
    """

    def __init__(
        self,
        model: SOLOv2 | ExportedModel,
        config: Config,
        categories: Sequence[Category] = (),
        score_threshold: float | None = None,
        device: torch.device | None = None,
        trained_on: str = "",
        amp: bool = False,
        calibration: Sequence[tuple[float, float]] = (),
        fold: bool = False,
        compiled: bool = False,
    ) -> None:
        self.trained_on = trained_on
        self.amp = amp
        self.calibration = tuple(calibration)
        self.device = device or torch.device("cpu")
        self._network: Callable[[Tensor], Predictions] | None = None
        if not isinstance(model, ExportedModel):
            network: SOLOv2 = model.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            runs = folded(network) if fold else network
            self._network = CompiledNetwork(runs) if compiled else runs
        self.model = model
        self.config = config
        self.categories = tuple(categories)
        self.score_threshold = DEFAULT_SCORE_THRESHOLD if score_threshold is None else score_threshold
        self._transforms = build_split_transforms(config.data.test)
        self._decode_options = decode_options(config)

    def predict(self, image: ImageLike, threshold: float | None = None) -> Instances:
        """Finds the objects in one picture.

        Args:
            image: a path, a PIL image, or a uint8 array, (H, W, 3) in BGR order or (H, W) grey.
            threshold: least score, 0..1; None is the model's own.

        Returns:
            The instances at the picture's own size, best first; empty when nothing was found.

        Raises:
            ImageError: if the picture cannot be read.
            ValueError: if the threshold is not in 0..1.

        Example:
            >>> import numpy as np, solov2
            >>> found = solov2.load("nuclei", device="cpu").predict(np.zeros((64, 64, 3), np.uint8))
            >>> found.masks.shape[1:]
            (64, 64)
        """
        return self.predict_batch([image], threshold)[0]

    def predict_batch(self, images: Sequence[ImageLike], threshold: float | None = None) -> list[Instances]:
        """Finds the objects in several pictures; the same results as one by one.

        Pictures that end up at the same size go through the network together.

        Args:
            images: as in :meth:`predict`.
            threshold: as in :meth:`predict`.
        """
        least = self.score_threshold if threshold is None else threshold
        if not 0 <= least <= 1:
            raise ValueError(f"threshold is {least}; expected a score in 0..1")
        samples = [self._transformed(read_image(image), number) for number, image in enumerate(images)]
        found: dict[int, Instances] = {}
        # Padding changes what a grid cell sees, so only pictures of equal padded size share a batch.
        batches = sorted((self._collate([sample]) for sample in samples), key=_padded_hw)
        for _, same_size in groupby(batches, key=_padded_hw):
            group = list(same_size)
            for start in range(0, len(group), MAX_BATCH):
                batch = _join(group[start : start + MAX_BATCH])
                found.update(zip(batch.image_ids, self.run(batch, least), strict=True))
        return [found[number] for number in range(len(samples))]

    def run(self, batch: Batch, threshold: float = 0.0) -> list[Instances]:
        """Runs a prepared batch.

        Args:
            batch: as :meth:`prepare` makes it.
            threshold: least score, 0..1; 0: everything that decoding keeps. What is below costs no mask.
        """
        if isinstance(self.model, ExportedModel):
            least = max(least_raw(threshold, self.calibration), 0.0)
            found = self.model.run(batch, self.config.decode.mask_threshold, least)
        else:
            found = self.masks(self.choose(self.forward(self.normalized(batch)), batch, threshold))
        return [self.finished(instances, threshold) for instances in found]

    def forward(self, images: Tensor) -> Predictions:
        """What the network says about :meth:`normalized` pictures; not of an exported model, which decodes too."""
        assert self._network is not None
        with torch.inference_mode(), torch.autocast(self.device.type, _half(self.device), enabled=self.amp):
            return self._network(images)

    def normalized(self, batch: Batch) -> Tensor:
        """The network's input, (B, 3, H, W) float32 on its device: bytes travel there, and are normalised there."""
        data = self.config.data.normalize
        with torch.inference_mode():
            images = normalize(batch.images.to(self.device), batch.frames, data.mean, data.std)
            return images.contiguous(memory_format=torch.channels_last)

    def choose(self, predictions: Predictions, batch: Batch, threshold: float = 0.0) -> list[Chosen]:
        """The first part of decoding a prepared batch; some of what it keeps may score below the threshold, 0..1."""
        options = self._decode_options.copy()
        options["update_threshold"] = max(options["update_threshold"], least_raw(threshold, self.calibration))
        with torch.inference_mode():
            return choose(predictions, batch.frames, **options)

    def masks(self, chosen: Sequence[Chosen]) -> list[Instances]:
        """The second part of decoding: instances with masks at each picture's own size, scores still raw."""
        with torch.inference_mode():
            return [one.instances(self.config.decode.mask_threshold) for one in chosen]

    def finished(self, found: Instances, threshold: float = 0.0) -> Instances:
        """Instances as they are told: with classes and calibrated scores, and none of these below the threshold."""
        scores = calibrated(found.scores, self.calibration) if self.calibration else found.scores
        found = replace(found, categories=self.categories, scores=scores)
        return without_crumbs(found[scores >= threshold] if threshold > 0 else found, self.config.decode.least_part)

    def prepare(self, image: ImageLike) -> Batch:
        """One picture as :meth:`run` takes it; of an exported model's size, where it takes only one."""
        return self.batch_of([read_image(image)])

    def batch_of(self, pictures: Sequence[RGB]) -> Batch:
        """Pictures that were read, all of one size, as :meth:`run` takes them; as :meth:`prepare`."""
        batch = self._collate([self._transformed(picture, number) for number, picture in enumerate(pictures)])
        return self.model.padded(batch) if isinstance(self.model, ExportedModel) else batch

    def _transformed(self, picture: RGB, number: int) -> Sample:
        sample = Sample.of_image(picture, image_id=number)
        rng = np.random.default_rng(0)  # nothing random is left in a reader for prediction
        for transform in self._transforms:
            sample = transform(sample, rng)
        fixed_hw = self.model.fixed_hw if isinstance(self.model, ExportedModel) else None
        return sample if fixed_hw is None else _fitted(sample, fixed_hw)

    def _collate(self, samples: Sequence[Sample]) -> Batch:
        return collate(samples, with_targets=False, pad_stride=self.config.data.pad_stride)


def _fitted(sample: Sample, hw: HW) -> Sample:
    """A picture that is larger than the only size a file takes, scaled down to fit."""
    scale = min(side / given for side, given in zip(hw, sample.hw, strict=True))
    if scale >= 1:
        return sample
    height, width = (max(int(scale * given), 1) for given in sample.hw)
    return resize_sample(sample, (height, width), LINEAR)


def _half(device: torch.device) -> torch.dtype:
    lacks_bfloat16 = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if lacks_bfloat16 else torch.bfloat16


def _padded_hw(batch: Batch) -> tuple[int, int]:
    return batch.frames[0].padded_hw


def _join(batches: Sequence[Batch]) -> Batch:
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        frames=tuple(frame for batch in batches for frame in batch.frames),
        image_ids=tuple(number for batch in batches for number in batch.image_ids),
        names=tuple(name for batch in batches for name in batch.names),
    )
