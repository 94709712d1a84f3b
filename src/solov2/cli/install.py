"""solov2 install: PaddleHub's ``hub install`` for the models of the zoo."""

from __future__ import annotations

import argparse
from pathlib import Path

from solov2.predict import model_named
from solov2.weights.finding import find_file, find_weights
from solov2.weights.zoo import zoo_entry


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    for name in arguments.names:
        # Versions are those of PaddleHub's modules; a model of this package has one.
        print(f"{name}: {_place(model_named(name.partition('==')[0]))}", flush=True)
    return 0


def _place(model: str) -> Path:
    """The model's file, downloaded where it has to be."""
    if (file := find_file(model)) is not None:
        return file
    entry = zoo_entry(model)
    if entry.shipped:
        return find_weights(entry.name)
    from solov2.opening import open_zoo

    return open_zoo(entry.name)
