"""The files of weights that a run leaves, and the room made for them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from solov2.config import Config
from solov2.config.own_data import without_paths
from solov2.evaluate import Evaluation
from solov2.structures import Category
from solov2.training.module import SOLOv2Module
from solov2.training.progress import METRICS_FILE
from solov2.training.saving import LAST_CHECKPOINT
from solov2.weights.files import WeightsFile, write_weights

logger = logging.getLogger(__name__)

FINAL_WEIGHTS = "model_final.safetensors"
BEST_WEIGHTS = "best_model.safetensors"
SHEETS = "validation"


def keep_earlier_run(folder: Path) -> None:
    """Moves what an earlier run left in the folder into one of its own, so that nothing is lost or mixed up."""
    files = [folder / name for name in (LAST_CHECKPOINT, FINAL_WEIGHTS, BEST_WEIGHTS, METRICS_FILE, SHEETS)]
    files = [file for file in files if file.exists()]
    if not files:
        return
    number = 1
    while (folder / f"earlier_{number}").exists():
        number += 1
    earlier = folder / f"earlier_{number}"
    earlier.mkdir()
    for file in files:
        file.rename(earlier / file.name)
    logger.info("%s holds an earlier run; it is now in %s", folder, earlier)


def finish(
    module: SOLOv2Module,
    config: Config,
    folder: Path,
    categories: Sequence[Category],
    evaluation: Evaluation | None,
) -> Path:
    """Writes the weights at the end of a run.

    Args:
        module: as training left it.
        config: the recipe.
        folder: of the run.
        categories: classes by label.
        evaluation: the last one.

    Returns:
        The file to use: the best weights where there was an evaluation, else the last ones.
    """
    save_weights(module, config, folder / FINAL_WEIGHTS, categories, evaluation)
    best = folder / BEST_WEIGHTS
    weights = best if evaluation is not None and best.exists() else folder / FINAL_WEIGHTS
    logger.info("finished; use it with: solov2 predict -m %s PICTURE", weights)
    return weights


def save_weights(
    module: SOLOv2Module,
    config: Config,
    path: Path,
    categories: Sequence[Category],
    evaluation: Evaluation | None,
) -> None:
    """Writes the network's weights from the first process, with the threshold of an evaluation."""
    if not module.trainer.is_global_zero:
        return
    weights = WeightsFile(
        state=module.best_model.state_dict(),
        config=without_paths(config).model_dump(mode="json"),
        categories=tuple(categories),
        score_threshold=evaluation.best_threshold if evaluation is not None else None,
        trained_on=module.metadata["trained_on"],
    )
    write_weights(path, weights)
