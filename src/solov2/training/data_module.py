"""Training batches, epoch by epoch."""

from __future__ import annotations

from functools import partial

import lightning
import torch
from torch.utils.data import DataLoader

from solov2.config import Config
from solov2.data.coco import CocoDataset
from solov2.data.collate import collate
from solov2.data.loader import EpochBatchSampler, make_loader
from solov2.structures import Batch


class TrainingData(lightning.LightningDataModule):
    """Makes a loader for every epoch, so that its order is a function of seed and epoch alone.

    Args:
        dataset: the training pictures.
        config: the recipe.
        seen: epoch and number of its batches that a resumed run has seen.
    """

    def __init__(self, dataset: CocoDataset, config: Config, seen: tuple[int, int] = (-1, 0)) -> None:
        super().__init__()
        self.dataset = dataset
        self.config = config
        self.seen = seen

    def train_dataloader(self) -> DataLoader[Batch]:
        """This device's batches of the trainer's current epoch."""
        assert self.trainer is not None
        epoch = self.trainer.current_epoch
        sampler = self.sampler(epoch, self.trainer.global_rank, self.trainer.world_size)
        return make_loader(
            self.dataset,
            sampler,
            partial(collate, with_targets=True, pad_stride=self.config.data.pad_stride),
            workers=self.config.train.workers,
            pin_memory=torch.cuda.is_available(),
        )

    def sampler(self, epoch: int, rank: int, world_size: int) -> EpochBatchSampler:
        """The order of one epoch on one device."""
        reader = self.config.data.train.reader
        full = EpochBatchSampler(
            len(self.dataset),
            reader.batch_size,
            shuffle=reader.shuffle,
            drop_last=reader.drop_last,
            seed=self.config.train.seed,
            rank=rank,
            world_size=world_size,
            epoch=epoch,
            sizes=self.dataset.sizes if reader.group_by_size else None,
        )
        if epoch == self.seen[0] and self.seen[1] < len(full):
            full.skip = self.seen[1]
        return full
