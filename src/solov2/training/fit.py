"""train(): from a recipe and a COCO json to weights. The file to read first."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

from solov2.build import build_dataset, build_model, build_schedule, source_paths
from solov2.coco_metrics import MaskAP
from solov2.config import Config, load_config
from solov2.config.own_data import Paths, with_own_data, with_short_warm_up, without_paths
from solov2.data.coco import CocoDataset
from solov2.data.fingerprints import pack
from solov2.errors import ConfigError
from solov2.evaluate import Evaluation, evaluate
from solov2.predict import Predictor, choose_device
from solov2.structures import Category
from solov2.training.checks import (
    check_room,
    check_trainable,
    read_checkpoint,
    tell_learning_rate,
    telling_out_of_memory,
    warn_of_batch_size,
)
from solov2.training.data_module import TrainingData
from solov2.training.finishing import BEST_WEIGHTS, SHEETS, finish, keep_earlier_run, save_weights
from solov2.training.loggers import make_loggers
from solov2.training.module import SOLOv2Module
from solov2.training.placement import Placement, precision, share_statistics
from solov2.training.progress import METRICS_FILE, Progress
from solov2.training.saving import LAST_CHECKPOINT, Saving, Snapshots
from solov2.training.sheet import draw_sheet, sheet_records
from solov2.visualize import save_picture
from solov2.weights.files import WeightsFile
from solov2.weights.load import load_pretrained

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a run left behind.

    Attributes:
        folder: of the run; holds ``last.ckpt`` and ``metrics.csv``.
        weights: ``best_model.safetensors`` where there was an evaluation, else
            ``model_final.safetensors``; None when the run was stopped.
        ap: of the last evaluation.
        stopped: Ctrl-C ended the run; it can be resumed from ``last.ckpt``.
    """

    folder: Path
    weights: Path | None
    ap: MaskAP | None
    stopped: bool


def train(
    recipe: str | Path = "nano",
    *,
    data: Paths | None = None,
    val: str | Path | None = None,
    images: Paths | None = None,
    val_images: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: str | Path | None = None,
    device: str = "auto",
    strict: bool = False,
    evaluate_epochs: bool = True,
    skip_bad_batches: bool = False,
    loggers: Sequence[str] = ("tensorboard",),
    devices: str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> TrainResult:
    """Trains a model.

    Args:
        recipe: a recipe file, or the name of a shipped one.
        data: COCO json to train on, instead of the recipe's; classes come from it. Several are put together.
        val: COCO json to evaluate on.
        images: folder of the pictures, or one for each of ``data``.
        val_images: folder of the pictures of ``val``, where it is another.
        overrides: KEY=VALUE in the recipe's keys.
        resume: a ``last.ckpt`` to go on from; of a file with weights alone the run starts at step 0.
        device: "auto", "cpu", "cuda" or "mps".
        strict: refuse data with defects instead of leaving the bad parts out.
        evaluate_epochs: evaluate at every snapshot, where there is evaluation data.
        skip_bad_batches: leave out batches whose loss is not finite, and count them, instead of stopping.
        loggers: besides metrics.csv: "tensorboard", "csv", "wandb", "mlflow", "comet" or "neptune".
        devices: how many per machine, or which, as Lightning has it: "auto", "2", "0,3".
        num_nodes: machines.
        strategy: how devices work together, as Lightning has it: "auto", "ddp".

    Raises:
        ConfigError: if the recipe or an override is wrong.
        DatasetError: if the data cannot be used.
        WeightsError: if weights to start from cannot be used.
        TrainingError: if the loss is no longer a number, or memory runs out.

    Example:
        >>> import solov2
        >>> solov2.train("nano", data="train.json", val="val.json", images="pictures")  # doctest: +SKIP
    """
    if os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) != "0":
        logging.getLogger("solov2").setLevel(logging.ERROR)  # one process tells it all
    config = with_own_data(load_config(recipe, overrides), data=data, val=val, images=images, val_images=val_images)
    if any(override.startswith(("TrainReader.batch_size", "accumulate")) for override in overrides):
        warn_of_batch_size(load_config(recipe), config)
    dataset = build_dataset(config, config.data.train, training=True, strict=strict)
    _check_classes(config, dataset.categories)
    eval_dataset = None
    if evaluate_epochs and config.data.eval.source.anno_path is not None:  # looked at now: not after hours
        eval_dataset = build_dataset(
            config, config.data.eval, categories=dataset.categories, training=False, strict=strict
        )
    folder = Path(config.train.save_dir).expanduser() / (config.train.run_name or config.name)
    checkpoint = None if resume is None else read_checkpoint(Path(resume), config, dataset.categories)

    lightning.seed_everything(config.train.seed, verbose=False)
    model = build_model(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    check_trainable(model)
    check_room(folder, model, averaged=config.train.ema)
    if checkpoint is None and (start := resume or config.train.init_weights):
        if resume is not None:
            logger.info("%s holds weights alone: training starts from them at step 0", resume)
        load_pretrained(model, start, tuple(c.name for c in dataset.categories))
    place = Placement(choose_device(device), devices, num_nodes, strategy)
    made_loggers = make_loggers(loggers, folder)
    trainer, snapshots, saving = _trainer(config, folder, place, made_loggers, dataset.categories, eval_dataset)
    if trainer.is_global_zero and checkpoint is None:
        keep_earlier_run(folder)
    share_statistics(model, place.device, trainer.world_size)
    batches = TrainingData(dataset, config, _progress_of(checkpoint))
    steps_per_epoch = -(-len(batches.sampler(0, 0, trainer.world_size)) // config.train.accumulate)
    config = with_short_warm_up(config, steps_per_epoch)
    stored = without_paths(config).model_dump(mode="json")
    module = SOLOv2Module(
        model,
        config,
        build_schedule(config, steps_per_epoch),
        trainer.world_size / config.train.base_devices,
        WeightsFile({}, stored, dataset.categories, trained_on=pack(dataset.records)).metadata(),
        skip_bad_batches=skip_bad_batches,
    )
    logger.info(
        "training %s on %d pictures, %d classes, into %s", config.name, len(dataset), config.model.num_classes, folder
    )
    tell_learning_rate(config, trainer.world_size)
    if eval_dataset is None:
        hint = "" if config.data.eval.source.anno_path is None else ": --eval would, on the recipe's evaluation data"
        logger.info("the run is not evaluated%s", hint)
    with warnings.catch_warnings(), telling_out_of_memory(config):
        warnings.filterwarnings("ignore", module="lightning")  # advice on settings that are chosen here
        trainer.fit(module, batches, ckpt_path=str(resume) if checkpoint is not None else None, weights_only=True)
    if module.skipped:
        logger.warning("%d batches were left out for a loss that was no number", module.skipped)
    if saving.stopped and trainer.current_epoch < config.train.epochs:
        logger.info("stopped; go on with: -r %s", folder / LAST_CHECKPOINT)
        return TrainResult(folder, None, snapshots.last.ap if snapshots.last else None, stopped=True)
    weights = finish(module, config, folder, dataset.categories, snapshots.last)
    return TrainResult(folder, weights, snapshots.last.ap if snapshots.last else None, stopped=False)


def _check_classes(config: Config, categories: Sequence[Category]) -> None:
    if len(categories) != config.model.num_classes:
        raise ConfigError(
            f"{source_paths(config.data.train)[0]} has {len(categories)} categories and the recipe num_classes: "
            f"{config.model.num_classes}; set -o num_classes={len(categories)}"
        )


def _progress_of(checkpoint: Mapping[str, Any] | None) -> tuple[int, int]:
    if checkpoint is None:
        return -1, 0
    return checkpoint["progress"]["epoch"], checkpoint["progress"]["batches"]


def _trainer(
    config: Config,
    folder: Path,
    place: Placement,
    loggers: list[Any],
    categories: Sequence[Category],
    eval_dataset: CocoDataset | None,
) -> tuple[lightning.Trainer, Snapshots, Saving]:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # their greetings
    categories = tuple(categories)

    def evaluate_now(module: SOLOv2Module) -> Evaluation | None:
        assert eval_dataset is not None
        predictor = Predictor(module.best_model, config, categories, device=module.device)
        batch_size = config.data.eval.reader.batch_size
        evaluation = evaluate(
            predictor,
            eval_dataset,
            batch_size=batch_size,
            workers=config.train.workers,
            keep={record["id"] for record in sheet_records(eval_dataset)},
            stop=lambda: saving.is_asked_to_stop(trainer),
        )
        module.model.train()
        if evaluation is not None and (sheet := draw_sheet(evaluation, eval_dataset, categories)) is not None:
            save_picture(folder / SHEETS / f"epoch_{module.current_epoch + 1:03}.jpg", sheet)
        return evaluation

    def save_best(module: SOLOv2Module) -> None:
        save_weights(module, config, folder / BEST_WEIGHTS, categories, snapshots.last)

    evaluator = evaluate_now if eval_dataset is not None else None
    snapshots = Snapshots(folder, config.train.snapshot_epoch, evaluator, save_best)
    saving = Saving(folder, config.train.checkpoint_minutes, config.train.checkpoint_steps)
    trainer = lightning.Trainer(
        **place.arguments(),
        precision=precision(config, place.device),
        max_epochs=config.train.epochs,
        accumulate_grad_batches=config.train.accumulate,
        gradient_clip_val=config.optim.clip_norm or config.optim.clip_value,
        gradient_clip_algorithm="norm" if config.optim.clip_norm else "value",
        callbacks=[Progress(config.train.log_every, folder / METRICS_FILE), saving, snapshots],
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        logger=loggers or False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    return trainer, snapshots, saving
