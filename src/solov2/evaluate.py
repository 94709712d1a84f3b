"""Evaluation: a model and a COCO json become COCO results and mask AP.

Every picture of the json is predicted, those without objects too, as COCO's protocol asks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from solov2.build import build_dataset, source_paths
from solov2.coco_metrics import MaskAP, mask_ap, pooled_matching
from solov2.config import Config
from solov2.data.collate import collate
from solov2.data.loader import EpochBatchSampler, make_loader
from solov2.formats import CocoResult, to_coco_results
from solov2.predict import Predictor
from solov2.structures import Category

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation measured.

    Attributes:
        ap: the twelve COCO numbers.
        results: COCO result records of all pictures.
        seconds: wall time of reading, prediction and encoding.
        images: pictures predicted.
    """

    ap: MaskAP
    results: list[CocoResult]
    seconds: float
    images: int


def evaluate(
    predictor: Predictor, config: Config, *, categories: Sequence[Category], strict: bool = False
) -> Evaluation:
    """Predicts all pictures of the recipe's evaluation data and computes mask AP.

    Args:
        predictor: the model; its recipe's cap on instances is COCO's maxDets.
        config: names the evaluation data.
        categories: the model's classes.
        strict: refuse data with defects.

    Raises:
        ConfigError: if the recipe names no annotation file.
        DatasetError: if the data cannot be used, or its classes are not the model's.
    """
    started = time.perf_counter()
    split = config.data.eval
    dataset = build_dataset(config, split, categories=categories, training=False, strict=strict)
    sampler = EpochBatchSampler(len(dataset), split.reader.batch_size)
    loader = make_loader(
        dataset,
        sampler,
        partial(collate, with_targets=False, pad_stride=config.data.pad_stride),
        workers=min(config.train.workers, len(sampler)),
    )
    results: list[CocoResult] = []
    done, told = 0, started
    for batch in loader:
        for image_id, found in zip(batch.image_ids, predictor.run(batch), strict=True):
            results += to_coco_results(found, image_id)
        done += len(batch)
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            logger.info("evaluated %d of %d pictures", done, len(dataset))
    seconds = time.perf_counter() - started
    json_path, _ = source_paths(split)
    ap = mask_ap(json_path, results, max_dets=predictor.config.decode.post_nms_top_n)
    return Evaluation(ap, results, seconds, len(dataset))


def best_threshold(config: Config, results: Sequence[CocoResult]) -> float:
    """The score that separates right from wrong best on the evaluation data.

    Args:
        config: names the evaluation data.
        results: records of an evaluation on it.

    Returns:
        Of 0.10, 0.15 … 0.90 the threshold with the highest pooled TP / (TP + FP + FN) at IoU 0.5.
    """
    json_path, _ = source_paths(config.data.eval)
    thresholds = np.arange(0.1, 0.901, 0.05).round(2).tolist()
    scores = [pooled_matching(json_path, results, threshold)["all"].score for threshold in thresholds]
    return float(thresholds[int(np.argmax(scores))])
