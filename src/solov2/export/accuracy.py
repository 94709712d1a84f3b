"""What a file's precision costs: mask AP of PyTorch and of the exported file on the same pictures."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solov2.build import build_dataset
from solov2.config.own_data import with_own_data
from solov2.errors import ConfigError
from solov2.evaluate import evaluate
from solov2.export.parity import LEAST_INSTANCES, Parity
from solov2.predict import Predictor

logger = logging.getLogger(__name__)

LARGEST_LOSS = 0.01
"""Of AP, 0..1."""

LEAST_MATCHED = 0.9
"""Share of instances that both find, where AP is not measured."""

LEAST_MEAN_IOU = 0.9
"""Of their masks."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Mask AP, 0..1.

    Attributes:
        pytorch: of the weights.
        exported: of the file.
        pictures: it was measured on.
        data: name of their annotation file.
    """

    pytorch: float
    exported: float
    pictures: int
    data: str

    @property
    def loss(self) -> float:
        """What the file has less; negative where it has more."""
        return self.pytorch - self.exported

    def report(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "data": self.data,
            "pictures": self.pictures,
            "ap_pytorch": self.pytorch,
            "ap_exported": self.exported,
            "ap_loss": self.loss,
            "largest_loss": LARGEST_LOSS,
        }


def measure(ours: Predictor, theirs: Predictor, data: Path, images: Path | None = None) -> Accuracy:
    """Evaluates both as ``solov2 eval`` does.

    Args:
        ours: on PyTorch.
        theirs: the exported file.
        data: COCO json of the model's classes.
        images: folder of its pictures; default: the json's folder.

    Raises:
        DatasetError: if the data cannot be used.
        ConfigError: if it has other classes than the model.
    """
    config = with_own_data(ours.config, val=data, images=images)
    split = config.data.eval
    dataset = build_dataset(config, split, categories=ours.categories or None, training=False, strict=False)
    if len(dataset.categories) != config.model.num_classes:
        raise ConfigError(
            f"the model has {config.model.num_classes} classes, {data} has {len(dataset.categories)}: measure with "
            "data that the weights were trained for"
        )
    found = []
    for what, predictor in (("PyTorch", ours), ("the exported file", theirs)):
        logger.info("measuring AP of %s on %d pictures", what, len(dataset))
        predictor.categories = tuple(dataset.categories)
        evaluation = evaluate(predictor, dataset, batch_size=split.reader.batch_size)
        assert evaluation is not None  # there is one process
        found.append(evaluation.ap.ap)
    return Accuracy(found[0], found[1], len(dataset), data.name)


def losses(parity: Parity, accuracy: Accuracy | None) -> list[str]:
    """What a file of 8 bits loses beyond what it may, in words; empty where all is well.

    AP decides where it was measured, else how many instances PyTorch finds too.
    """
    if accuracy is not None:
        if accuracy.loss <= LARGEST_LOSS:
            return []
        return [
            f"{accuracy.loss:.4f} AP lost on {accuracy.pictures} pictures ({accuracy.pytorch:.4f} with PyTorch, "
            f"{accuracy.exported:.4f} from the file), at most {LARGEST_LOSS} allowed"
        ]
    wrong = []
    if parity.matched < LEAST_INSTANCES:
        wrong.append(f"only {parity.matched} instances matched in {parity.pictures} pictures, {LEAST_INSTANCES} needed")
    share = parity.matched / max(parity.matched + parity.unmatched, 1)
    if share < LEAST_MATCHED:
        wrong.append(f"{parity.unmatched} instances found by one side alone and {parity.matched} by both")
    if parity.mean_iou < LEAST_MEAN_IOU:
        wrong.append(f"mean mask IoU {parity.mean_iou:.4f}, at least {LEAST_MEAN_IOU} needed")
    return wrong
