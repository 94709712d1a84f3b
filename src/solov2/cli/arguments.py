"""Every command's flags, apart from what the commands do, so that --help imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def _config(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "-c", "--config", required=required, metavar="RECIPE", help="a recipe file, or the name of a shipped recipe"
    )
    _overrides(parser)


def _overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--opt",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings that win over the recipe's, such as TrainReader.batch_size=2",
    )


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda, mps")


def _data(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--data", metavar="JSON", help=f"COCO json to {purpose}, instead of the recipe's")
    parser.add_argument("--images", metavar="DIR", help="folder of its pictures; default: the json's folder")
    parser.add_argument("--strict", action="store_true", help="refuse data with defects instead of leaving them out")


def _train(parser: argparse.ArgumentParser) -> None:
    _config(parser, required=True)
    _data(parser, "train on")
    parser.add_argument("--val", metavar="JSON", help="COCO json to evaluate on")
    parser.add_argument("--val-images", metavar="DIR", help="folder of its pictures; default: that of --images")
    parser.add_argument(
        "-r", "--resume", metavar="CKPT", help="go on from a run's last.ckpt; from a weights file start at step 0"
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument(
        "--skip-bad-batches", action="store_true", help="leave out batches whose loss is no number instead of stopping"
    )
    parser.add_argument(
        "--logger",
        action="append",
        metavar="NAME",
        help="tensorboard (default), csv, wandb, mlflow, comet, neptune or none; may be given several times",
    )
    _device(parser)
    parser.add_argument("--devices", default="auto", metavar="N", help="how many per machine, or which: 2, or 0,3")
    parser.add_argument("--num-nodes", type=int, default=1, metavar="N", help="machines")
    parser.add_argument("--strategy", default="auto", metavar="NAME", help="how devices work together, e.g. ddp")
    parser.set_defaults(module="train")


def _eval(parser: argparse.ArgumentParser) -> None:
    _config(parser, required=False)
    _data(parser, "evaluate on")
    parser.add_argument("-w", "--weights", metavar="FILE", help="weights file, or a name; default: the recipe's")
    parser.add_argument("--classwise", action="store_true", help="also AP per class")
    parser.add_argument(
        "--matching", action="store_true", help="also TP/(TP+FP+FN) at IoU 0.5, pooled over all pictures"
    )
    parser.add_argument(
        "--group-by",
        metavar="FIELD",
        help="with --matching: also for each value of this field of the json's images",
    )
    parser.add_argument("--threshold", type=float, help="score threshold of --matching; default: the model's own")
    parser.add_argument("--json", metavar="FILE", help="write the results as COCO records")
    _device(parser)
    parser.set_defaults(module="evaluate")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="PICTURE", help="picture files, folders or glob patterns")
    parser.add_argument("-m", "--model", metavar="MODEL", help="name of a model, or a weights file")
    parser.add_argument("-o", "--output", default="solov2_result", metavar="DIR", help="folder of the overlays")
    parser.add_argument("--threshold", type=float, help="least score, 0..1; default: the model's own")
    parser.add_argument("--json", metavar="FILE", help="write all instances as COCO records with RLE masks")
    _device(parser)
    parser.set_defaults(module="predict")


def _infer(parser: argparse.ArgumentParser) -> None:
    _config(parser, required=True)
    parser.add_argument("-w", "--weights", metavar="FILE", help="weights file, or a name; default: the recipe's")
    parser.add_argument("--infer_img", metavar="FILE", help="one picture; wins over --infer_dir")
    parser.add_argument("--infer_dir", metavar="DIR", help="a folder of pictures")
    parser.add_argument("--output_dir", default="output", metavar="DIR", help="folder of the overlays")
    parser.add_argument("--draw_threshold", type=float, default=0.5, help="least score, 0..1")
    parser.add_argument(
        "--save_results", type=_yes_or_no, default=False, metavar="BOOL", help="write segm.json into --output_dir"
    )
    _device(parser)
    parser.set_defaults(module="infer")


def _show_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "check", "list"), help="what to do")
    _config(parser, required=False)
    parser.set_defaults(module="config")


def _zoo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=("list", "show", "download", "verify"),
        help="list all models (default), show everything about some, download some to have them without a network, "
        "or verify that what was downloaded is unchanged",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="models to show or download")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(module="zoo")


def _convert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SRC",
        help="weights of PaddleDetection, the authors, mmdetection, AdelaiDet or this package, or a name of the zoo",
    )
    parser.add_argument("destination", metavar="DST.safetensors", help="the file to write")
    _config(parser, required=False)
    parser.add_argument(
        "--classes", metavar="FILE", help="class names: a COCO json, or text with one per line; default: as known"
    )
    parser.add_argument("--half", action="store_true", help="store convolutions as float16: half the size")
    parser.add_argument("--force", action="store_true", help="replace DST if it is there")
    parser.set_defaults(module="convert")


def _yes_or_no(text: str) -> bool:
    # argparse's bool would take the word False for true.
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return words[text.lower()]


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "predict": ("Find the objects in pictures and draw them.", _predict),
    "train": ("Train a model on a COCO json.", _train),
    "eval": ("Measure COCO mask AP.", _eval),
    "infer": ("Predict with a recipe, with PaddleDetection's flags.", _infer),
    "config": (
        "Show a recipe's settings and where they come from, check it, or list the shipped recipes.",
        _show_config,
    ),
    "convert": ("Turn published weights into a file of this package.", _convert),
    "zoo": ("List the published models, download them, or verify what was downloaded.", _zoo),
}
