#!/usr/bin/env python3
"""Turns a run's weights into weights that come with the package: half precision, with data and licence.

scripts/ship_weights.py RUN/best_model.safetensors NAME [score_threshold=0.4] [key=text ...]
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from solov2.config import load_config
from solov2.config.own_data import without_paths
from solov2.weights.files import WEIGHTS_SUFFIX, read_weights, write_weights
from solov2.weights.finding import SHIPPED


def main(source: str, name: str, *about: str) -> None:
    """Writes src/solov2/weights/shipped/NAME.safetensors."""
    target = SHIPPED / f"{name}{WEIGHTS_SUFFIX}"
    topics = dict(topic.split("=", 1) for topic in about)
    weights = read_weights(Path(source))
    threshold = float(topics.pop("score_threshold", weights.score_threshold or 0.5))
    # The shipped recipe: keys that the network does not use may have changed since the run.
    config = without_paths(load_config(name)).model_dump(mode="json")
    write_weights(target, replace(weights, config=config, score_threshold=threshold, about=topics), half=True)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
