"""Evaluation: a model and a COCO json become COCO results and mask AP.

Every picture of the json is predicted, those without objects too, as COCO's protocol asks. Several
processes take a share of the pictures each; the first one puts the results together.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from solov2.coco_metrics import MaskAP, mask_ap, pooled_matching
from solov2.data.coco import CocoDataset
from solov2.data.collate import collate
from solov2.data.loader import EpochBatchSampler, make_loader
from solov2.formats import CocoResult, to_coco_results
from solov2.predict import Predictor

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 15.0


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured.

    Attributes:
        ap: the twelve COCO numbers.
        results: COCO result records of all pictures.
        seconds: wall time of reading, prediction and encoding.
        images: pictures predicted.
        truth: what they were measured against, in COCO's form.
    """

    ap: MaskAP
    results: list[CocoResult]
    seconds: float
    images: int
    truth: dict[str, Any]

    @cached_property
    def best_threshold(self) -> float | None:
        """The score that separates right from wrong best.

        Of 0.10, 0.15 … 0.90 the threshold with the highest pooled TP / (TP + FP + FN) at IoU 0.5;
        None where nothing right was found at any of them.
        """
        thresholds = np.arange(0.1, 0.901, 0.05).round(2).tolist()
        scores = np.nan_to_num([pooled_matching(self.truth, self.results, t)["all"].score for t in thresholds])
        return float(thresholds[int(np.argmax(scores))]) if scores.max() > 0 else None


@dataclass(frozen=True, slots=True)
class Share:
    """Which part of the pictures is this process's.

    Attributes:
        rank: its number, from 0.
        size: how many processes there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> Share:
        """As torch.distributed has it; everything where it is not in use."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    def gather(self, found: dict[int, list[CocoResult]]) -> dict[int, list[CocoResult]]:
        """The results of all, by picture, in the first process; in the others their own."""
        if self.size == 1:
            return found
        parts: list[Any] | None = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(found, parts)
        # Shares are of one length, so a few pictures may be in two of them: they count once.
        return {image: records for part in parts or [found] for image, records in part.items()}


def evaluate(
    predictor: Predictor, dataset: CocoDataset, *, batch_size: int = 1, workers: int = 0, boundary: bool = False
) -> Evaluation | None:
    """Predicts all pictures of a data set and computes mask AP.

    Where torch.distributed is in use every process must call it.

    Args:
        predictor: the model; its recipe's cap on instances is COCO's maxDets.
        dataset: of the model's classes, without annotations in its samples.
        batch_size: pictures that go through the network together.
        workers: processes that read pictures.
        boundary: measure boundary AP instead.

    Returns:
        What was measured; None in all processes but the first.
    """
    started = time.perf_counter()
    results = predict_dataset(predictor, dataset, batch_size=batch_size, workers=workers)
    if results is None:
        return None
    seconds = time.perf_counter() - started
    truth = dataset.ground_truth()
    ap = mask_ap(truth, results, max_dets=predictor.config.decode.post_nms_top_n, boundary=boundary)
    return Evaluation(ap, results, seconds, len(dataset), truth)


def predict_dataset(
    predictor: Predictor, dataset: CocoDataset, *, batch_size: int = 1, workers: int = 0
) -> list[CocoResult] | None:
    """COCO result records of all pictures of a data set, which needs no annotations for that.

    Arguments as for :func:`evaluate`.

    Returns:
        Records in the order of the pictures' ids; None in all processes but the first.
    """
    share = Share.here()
    sampler = EpochBatchSampler(len(dataset), batch_size, rank=share.rank, world_size=share.size)
    padded = partial(collate, with_targets=False, pad_stride=predictor.config.data.pad_stride)
    found: dict[int, list[CocoResult]] = {}
    done, told = 0, time.perf_counter()
    for batch in make_loader(dataset, sampler, padded, workers=min(workers, len(sampler))):
        for image_id, instances in zip(batch.image_ids, predictor.run(batch), strict=True):
            found[image_id] = to_coco_results(instances, image_id)
        done += len(batch) * share.size
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            logger.info("predicted %d of %d pictures", min(done, len(dataset)), len(dataset))
    found = share.gather(found)
    return None if share.rank > 0 else [record for image_id in sorted(found) for record in found[image_id]]
