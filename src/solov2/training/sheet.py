"""What an evaluation saw: validation pictures with the ground truth on the left and the prediction on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from solov2.data.coco import CocoDataset, is_crowd, make_sample
from solov2.data.image import read_image
from solov2.errors import ImageError
from solov2.evaluate import Evaluation
from solov2.formats import from_coco_results
from solov2.inspection.samples import Picture, contact_sheet, draw_sample
from solov2.structures import Category
from solov2.visualize import draw_instances

PICTURES = 6
"""On a sheet, evenly spread over the data set: the same ones at every evaluation."""

LEAST_SCORE = 0.3
"""Of a prediction that is drawn; a model in training is not sure of itself yet."""


def sheet_records(dataset: CocoDataset) -> list[dict[str, Any]]:
    """The json's records of the pictures on a sheet."""
    return [dataset.records[i] for i in np.unique(np.linspace(0, len(dataset) - 1, PICTURES).round().astype(int))]


def draw_sheet(evaluation: Evaluation, dataset: CocoDataset, categories: Sequence[Category]) -> Picture | None:
    """The sheet of one evaluation.

    Args:
        evaluation: of the data set, with the results of :func:`sheet_records` kept.
        dataset: its pictures.
        categories: the model's classes by label.

    Returns:
        (H, W, 3) RGB; None if none of the pictures can be read.
    """
    tiles = []
    label_of = {category.id: label for label, category in enumerate(categories)}
    for record in sheet_records(dataset):
        try:
            image = read_image(dataset.image_dir / record["file_name"])
        except ImageError:
            continue  # the evaluation has told
        truth = [a for a in evaluation.truth["annotations"] if a["image_id"] == record["id"] and not is_crowd(a)]
        found = [r for r in evaluation.kept if r["image_id"] == record["id"] and r["score"] >= LEAST_SCORE]
        instances = from_coco_results(found, (image.shape[0], image.shape[1]), categories)
        name = Path(record["file_name"]).name
        sample = make_sample(image, record, truth, label_of)
        drawn = draw_sample(replace(sample, boxes=sample.boxes[:0]), categories)  # masks alone are compared
        tiles.append((drawn, f"{name}  {len(truth)} objects"))
        tiles.append((draw_instances(image, instances), f"{len(found)} found, score {LEAST_SCORE} and more"))
    return contact_sheet(tiles) if tiles else None
