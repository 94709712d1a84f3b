"""solov2 train: a recipe and a COCO json in, weights out."""

from __future__ import annotations

import argparse

from solov2.errors import MissingDependencyError

INTERRUPTED = 130


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        from solov2.training.fit import train
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == "lightning":
            raise MissingDependencyError("lightning", "train", "solov2 train") from None
        raise
    result = train(
        arguments.config,
        data=arguments.data,
        val=arguments.val,
        images=arguments.images,
        val_images=arguments.val_images,
        overrides=[*arguments.opt, *(["amp=true"] if arguments.amp else [])],
        resume=arguments.resume,
        device=arguments.device,
        strict=arguments.strict,
        evaluate_epochs=arguments.eval or arguments.val is not None,
        skip_bad_batches=arguments.skip_bad_batches,
        loggers=[name for name in arguments.logger or ["tensorboard"] if name != "none"],
        devices=arguments.devices,
        num_nodes=arguments.num_nodes,
        strategy=arguments.strategy,
    )
    return INTERRUPTED if result.stopped else 0
