"""solov2 infer: predict with a recipe, under PaddleDetection's flags."""

from __future__ import annotations

import argparse
from pathlib import Path

from solov2.cli.evaluate import open_with_recipe
from solov2.cli.predict import check_places, find_pictures, predict_all
from solov2.errors import ConfigError

RESULTS_FILE = "segm.json"


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    sources = _sources(arguments)
    if not 0 <= arguments.draw_threshold <= 1:
        raise ConfigError(f"--draw_threshold is {arguments.draw_threshold}; expected a score in 0..1")
    paths, _ = find_pictures(sources)
    output = Path(arguments.output_dir)
    json_path = output / RESULTS_FILE if arguments.save_results else None
    check_places(output, json_path)
    from solov2.predict import predictor_of

    predictor = predictor_of(open_with_recipe(arguments.config, arguments.opt, arguments.weights), arguments.device)
    # As PaddleDetection has it: ids count from 0, and the threshold is for drawing alone.
    return predict_all(
        predictor,
        paths,
        output,
        arguments.draw_threshold,
        json_path,
        first_id=0,
        record_all=json_path is not None,
        draw=arguments.visualize,
    )


def _sources(arguments: argparse.Namespace) -> list[str]:
    """What to predict: one picture, those of a list, or a folder."""
    if arguments.infer_img:
        return [arguments.infer_img]
    if arguments.infer_dir is None:
        raise ConfigError("give a picture with --infer_img or a folder with --infer_dir")
    if arguments.infer_list is None:
        return [arguments.infer_dir]
    try:
        names = Path(arguments.infer_list).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--infer_list {arguments.infer_list}: cannot be read ({error}); expected names, one a line"
        ) from None
    listed = [str(Path(arguments.infer_dir) / name.strip()) for name in names if name.strip()]
    if not listed:
        raise ConfigError(f"--infer_list {arguments.infer_list}: names no picture")
    return listed
