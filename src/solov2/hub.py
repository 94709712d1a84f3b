"""PaddleHub's interface to SOLOv2: its ``hub.Module``, under the same names and with the same results.

Example:
    >>> from solov2 import hub
    >>> model = hub.Module(name="solov2", use_gpu=False)
    >>> output = model.predict(image="examples/dog.jpg")  # doctest: +SKIP
    >>> output["segm"].shape, output["label"], output["score"]  # doctest: +SKIP

Importing this module loads no PyTorch: that happens when a ``Module`` is made.
"""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import numpy.typing as npt

from solov2.errors import ConfigError, ImageError, WeightsError

if TYPE_CHECKING:
    from solov2.data.image import RGB, ImageLike
    from solov2.structures import Instances

logger = logging.getLogger(__name__)

NAME = "solov2"
"""What PaddleHub calls its module."""

PADDLEHUB_MODEL = "solov2_r50_fpn_1x_coco"
"""The published weights inside PaddleHub's module."""

DEFAULT_THRESHOLD = 0.5
DEFAULT_SAVE_DIR = "solov2_result"


class Result(TypedDict):
    """What :meth:`Module.predict` returns; N instances, best first.

    Attributes:
        segm: (N, H, W) int32, 1 inside the instance and 0 outside, at the picture's own size.
        label: (N,) int64, the class as an index from 0; for COCO 0..79, not COCO's own ids.
        score: (N,) float32, 0..1, descending.
    """

    segm: npt.NDArray[np.int32]
    label: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]


class Module:
    """A model, loaded as PaddleHub's ``hub.Module`` loads one.

    Args:
        name: ``solov2``, the package's default model or the one that the environment variable ``SOLOV2_MODEL`` names;
            or what :func:`solov2.load` takes: a name of the zoo, a weights file, an exported file.
        use_gpu: predict on a GPU. Where there is none a warning says so, and the CPU does it.
        version: of PaddleHub's module; accepted, and without a meaning here, where a model has one version.
        directory: a folder with weights, such as training leaves it: of several files ``best_model`` is taken, then
            ``model_final``. A ``name`` wins over it, as in PaddleHub.
        source: a git repository with modules in it; refused, because its code would run.
        update: goes with ``source``.
        branch: goes with ``source``.

    Attributes:
        name: as given; the folder's where there is none.
        predictor: the :class:`solov2.Predictor` that does the work.

    Raises:
        ConfigError: if there is neither a name nor a folder, or a ``source``.
        WeightsError: if there is no such model, it cannot be had, or the file is damaged.
        MissingDependencyError: if what runs an exported file is not installed.
    """

    def __init__(
        self,
        name: str | Path | None = None,
        *,
        use_gpu: bool = False,
        version: str | None = None,
        directory: str | Path | None = None,
        source: str | None = None,
        update: bool = False,
        branch: str | None = None,
    ) -> None:
        if source:
            raise ConfigError(
                f"source is {source!r}, a repository whose code would run; give a model's name or file as name instead"
            )
        if not name and not directory:
            raise ConfigError(f"neither name nor directory is given; expected hub.Module(name={NAME!r})")
        from solov2.predict import load, model_named

        model = model_named(name) if name else weights_in(Path(directory or ""))
        logger.info("%s: the model is %s", name or directory, model)
        if version:
            logger.info("version %s is one of PaddleHub's module; models of this package have only one", version)
        self.name = str(name or directory)
        self.predictor = load(model, _device(use_gpu=use_gpu))

    def predict(
        self,
        image: ImageLike,
        threshold: float = DEFAULT_THRESHOLD,
        visualization: bool = False,
        save_dir: str | Path = DEFAULT_SAVE_DIR,
    ) -> Result:
        """Finds the objects in one picture.

        PaddleHub's page calls ``label`` and ``score`` lists. They are arrays there too, and what is written for lists
        (``len``, indexing, loops) works with them.

        Args:
            image: a path, or a uint8 array, (H, W, 3) in BGR order as OpenCV gives it.
            threshold: least score, 0..1; everything below it is left out.
            visualization: write the picture with its instances into ``save_dir``, as PNG. The log names the file.
            save_dir: a folder; it is made where it is missing. No file in it is ever written over.

        Returns:
            The instances; without any, arrays of the usual types with N = 0.

        Raises:
            FileNotFoundError: if there is no file at the path.
            ImageError: if it is no picture, or the overlay cannot be written.
            ValueError: if the threshold is not in 0..1.

        Example:
            >>> import numpy as np
            >>> from solov2 import hub
            >>> output = hub.Module(name="nuclei").predict(image=np.zeros((48, 64, 3), np.uint8))
            >>> output["segm"].shape, output["segm"].dtype
            ((0, 48, 64), dtype('int32'))
        """
        picture = read_picture(image)
        found = self.predictor.predict(picture[:, :, ::-1], threshold)
        if visualization:
            logger.info("overlay: %s", save_overlay(picture, found, save_dir))
        return as_result(found)


# ------------------------------------------------------------------------------------------ which model


def weights_in(folder: Path) -> Path:
    """The weights file of a folder: ``best_model``, ``model_final``, or the only one.

    Raises:
        WeightsError: if there is none, or several of other names.
    """
    from solov2.runtime.interface import SUFFIXES as EXPORTED
    from solov2.weights.files import SUFFIXES
    from solov2.weights.finding import BEST_FIRST, find_file, find_weights

    if not folder.is_dir():
        raise WeightsError(f"{folder}: no such folder; expected one with weights in it")
    for stem in BEST_FIRST:
        if (best := find_file(folder / stem)) is not None:
            return best
    files = [file for file in folder.iterdir() if file.suffix in (*SUFFIXES, *EXPORTED) and file.is_file()]
    if len(files) == 1:
        return files[0]
    if not files and (folder / "module.py").is_file():
        raise WeightsError(
            f"{folder}: is a module of PaddleHub, whose program only Paddle runs; PaddleHub's solov2 holds the weights "
            f"that are published as {PADDLEHUB_MODEL}: give that as name"
        )
    return find_weights(folder, models_only=True)  # which says what is there


def _device(*, use_gpu: bool) -> str:
    if not use_gpu:
        return "cpu"
    from solov2.predict import choose_device

    if choose_device("auto").type == "cpu":
        logger.warning("use_gpu is true, and PyTorch finds no GPU here: predicting on the CPU")
    return "auto"


# --------------------------------------------------------------------------------------- picture, result


def read_picture(image: ImageLike) -> RGB:
    """As :func:`solov2.data.image.read_image`, but a missing file is Python's own error, as in PaddleHub.

    Raises:
        FileNotFoundError: if there is no file at the path.
        ImageError: if it is no picture.
    """
    from solov2.data.image import read_image

    try:
        return read_image(image)
    except ImageError as error:
        if isinstance(error.__context__, FileNotFoundError):
            raise FileNotFoundError(str(error)) from None
        raise


def as_result(found: Instances) -> Result:
    """Instances as PaddleHub's dict of arrays."""
    return Result(segm=found.masks.astype(np.int32), label=found.labels, score=found.scores)


def save_overlay(picture: RGB, found: Instances, save_dir: str | Path) -> Path:
    """Draws instances and writes the picture under a name that no other call takes, in no other process either.

    Args:
        picture: (H, W, 3) RGB.
        found: in this picture.
        save_dir: the folder; it is made where it is missing.

    Returns:
        The file: the time in seconds, as in PaddleHub, and 128 bits of the system's random source.

    Raises:
        ImageError: if it cannot be written.
    """
    from solov2.visualize import draw_instances, save_picture

    path = Path(save_dir) / f"{time.time():.3f}_{uuid.uuid4().hex}.png"
    save_picture(path, draw_instances(picture, found))
    return path
