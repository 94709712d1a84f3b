"""Evaluation: a model and a COCO json become COCO results and mask AP.

Every picture of the json is predicted, those without objects too, as COCO's protocol asks. Several
processes take a share of the pictures each; the first one puts the results together. The masks found in a picture are
matched at once and dropped: memory grows by some 40 bytes a detection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import torch

from solov2.coco_metrics import (
    MaskAP,
    Tally,
    ap_of,
    best_threshold,
    boundary_overlaps,
    mask_overlaps,
    read_ground_truth,
)
from solov2.data.coco import CocoDataset
from solov2.data.collate import collate
from solov2.data.loader import EpochBatchSampler, make_loader
from solov2.formats import CocoResult, to_coco_results
from solov2.predict import Predictor

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 15.0

T = TypeVar("T")

Write = Callable[[list[CocoResult]], object]
"""Takes the result records of one picture."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured.

    Attributes:
        ap: the twelve COCO numbers.
        tally: what became of every detection.
        kept: COCO result records of the pictures they were to be kept of.
        seconds: wall time of reading, prediction, encoding and matching.
        images: pictures predicted.
        truth: what they were measured against, in COCO's form.
    """

    ap: MaskAP
    tally: Tally
    kept: list[CocoResult]
    seconds: float
    images: int
    truth: dict[str, Any]

    @cached_property
    def best_threshold(self) -> float | None:
        """The score that separates right from wrong best, as :func:`~solov2.coco_metrics.best_threshold`."""
        return best_threshold(self.tally)


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

    def gather(self, found: dict[int, T]) -> dict[int, T]:
        """What all have found, by picture, in the first process; in the others their own."""
        if self.size == 1:
            return found
        parts: list[Any] | None = [None] * self.size if self.rank == 0 else None
        torch.distributed.gather_object(found, parts)
        # Shares are of one length, so a few pictures may be in two of them: they count once.
        return {image: records for part in parts or [found] for image, records in part.items()}


def evaluate(
    predictor: Predictor,
    dataset: CocoDataset,
    *,
    batch_size: int = 1,
    workers: int = 0,
    boundary: bool = False,
    keep: Collection[int] = (),
    write: Write | None = None,
    stop: Callable[[], bool] | None = None,
) -> Evaluation | None:
    """Predicts all pictures of a data set and computes mask AP.

    Where torch.distributed is in use every process must call it, with the same arguments.

    Args:
        predictor: the model; its recipe's cap on instances is COCO's maxDets.
        dataset: of the model's classes, without annotations in its samples.
        batch_size: pictures that go through the network together.
        workers: processes that read pictures.
        boundary: measure boundary AP instead.
        keep: ids of pictures whose result records are to be kept.
        write: as for :func:`predict_dataset`.
        stop: asked after every batch whether to give up; must say the same in all processes.

    Returns:
        What was measured; None in all processes but the first, and where it was given up.
    """
    started, share = time.perf_counter(), Share.here()
    truth = dataset.ground_truth()
    tally = Tally(read_ground_truth(truth), overlaps=boundary_overlaps() if boundary else mask_overlaps)
    kept: dict[int, list[CocoResult]] = {}
    for found in predict_dataset(predictor, dataset, batch_size=batch_size, workers=workers, write=write):
        for image_id, records in found.items():
            tally.add(records)
            if image_id in keep:
                kept[image_id] = records
        if stop is not None and stop():
            return None
    tally.by_picture, kept = share.gather(tally.by_picture), share.gather(kept)
    if share.rank > 0:
        return None
    seconds = time.perf_counter() - started
    ap = ap_of(tally, predictor.config.decode.post_nms_top_n)
    return Evaluation(ap, tally, [record for found in kept.values() for record in found], seconds, len(dataset), truth)


def predict_dataset(
    predictor: Predictor, dataset: CocoDataset, *, batch_size: int = 1, workers: int = 0, write: Write | None = None
) -> Iterator[dict[int, list[CocoResult]]]:
    """COCO result records of all pictures of a data set, which needs no annotations for that.

    Args:
        predictor: the model.
        dataset: of the model's classes.
        batch_size: pictures that go through the network together.
        workers: processes that read pictures.
        write: called in the first process with the records of every picture, in the order of the data set.

    Yields:
        Records by picture id, batch by batch; a process's own share of the pictures.
    """
    share = Share.here()
    sampler = EpochBatchSampler(len(dataset), batch_size, rank=share.rank, world_size=share.size)
    padded = partial(collate, with_targets=False, pad_stride=predictor.config.data.pad_stride)
    written: set[int] = set()
    done, told = 0, time.perf_counter()
    for batch in make_loader(dataset, sampler, padded, workers=min(workers, len(sampler))):
        found = {
            image_id: to_coco_results(instances, image_id)
            for image_id, instances in zip(batch.image_ids, predictor.run(batch), strict=True)
        }
        if write is not None:  # in step with each other, the processes need not keep what they found
            for image_id, records in share.gather(found).items():
                if share.rank == 0 and image_id not in written:
                    write(records)
                    written.add(image_id)
        yield found
        done += len(batch) * share.size
        if time.perf_counter() - told > PROGRESS_SECONDS:
            told = time.perf_counter()
            logger.info("predicted %d of %d pictures", min(done, len(dataset)), len(dataset))
