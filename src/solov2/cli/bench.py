"""solov2 bench: where a prediction's time goes, and forms of a model against each other."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from solov2.errors import ConfigError

if TYPE_CHECKING:
    from solov2.structures import HW

FORMS = ("plain", "torch", "compile", "onnxruntime", "openvino")


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "-m",
        "--model",
        required=True,
        metavar="MODEL",
        help="a model or weights file, a recipe (with random weights where its own are not here; nothing is "
        "downloaded), or an exported file",
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", *FORMS),
        default="auto",
        help="what runs it: torch as solov2 predict does (default), plain PyTorch, its compiler, or an export written "
        "for the measurement",
    )
    parser.add_argument(
        "--compile", dest="runtime", action="store_const", const="compile", help="the same as --runtime compile"
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="FORM",
        help=f"measured in turn with it: {', '.join(FORMS)}, exported files or other models",
    )
    parser.add_argument(
        "--size", nargs=2, type=int, metavar=("H", "W"), help="resize pictures to this; default: as the recipe does"
    )
    parser.add_argument(
        "--picture-size",
        nargs=2,
        type=int,
        metavar=("H", "W"),
        help="size of the picture that is made for the measurement; default: --size, or 480 640",
    )
    parser.add_argument("--picture", metavar="FILE", help="a picture of your own; its instances are the model's finds")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="pictures together; default: 1")
    parser.add_argument(
        "--instances",
        type=int,
        default=100,
        metavar="N",
        help="planted in every picture, as random weights find none; 0: what the model finds; default: 100",
    )
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to compute with; default: all")
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, mps")
    parser.add_argument("-o", "--output", metavar="FILE", help="write everything as JSON")
    parser.set_defaults(module="bench")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from solov2.weights.finding import why_not_written

    output = None if arguments.output is None else Path(arguments.output)
    if output is not None and (reason := why_not_written(output)):
        raise ConfigError(f"{output}: cannot be written ({reason}); make room, or choose another place")
    if arguments.threads is not None and arguments.threads < 1:
        raise ConfigError(f"--threads is {arguments.threads}; expected 1 or more")
    from solov2.benchmarking.bench import Request, bench
    from solov2.benchmarking.machine import keep_to_threads
    from solov2.benchmarking.report import as_table, as_values
    from solov2.formats import write_json

    if arguments.threads is not None:
        keep_to_threads(arguments.threads)
    report = bench(
        Request(
            model=arguments.model,
            forms=("torch" if arguments.runtime == "auto" else arguments.runtime, *arguments.compare),
            picture=None if arguments.picture is None else Path(arguments.picture),
            picture_hw=_sides(arguments.picture_size),
            size=_sides(arguments.size),
            batch=arguments.batch,
            instances=arguments.instances,
            rounds=arguments.rounds,
            device=arguments.device,
        )
    )
    print(as_table(report))
    if output is not None:
        write_json(output, as_values(report))
        print(f"written to {output}")
    return 0


def _sides(words: Sequence[int] | None) -> HW | None:
    return None if words is None else (words[0], words[1])
