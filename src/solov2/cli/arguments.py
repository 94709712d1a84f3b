"""Every command's flags, apart from what the commands do, so that --help imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from solov2.cli.bench import add_bench
from solov2.cli.serve_arguments import add_serve, add_serving


class _Refused(argparse.Action):
    """A flag of PaddleDetection's tools without a meaning here: named, instead of called unknown."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Ends the command with the reason."""
        parser.error(f"{option_string} is not part of this package: {self.metavar}")


def _refuse(parser: argparse.ArgumentParser, reasons: dict[str, str]) -> None:
    for flags, reason in reasons.items():
        for flag in flags.split():
            parser.add_argument(flag, action=_Refused, nargs="*", help=argparse.SUPPRESS, metavar=reason)


_NO_SLIM = "models are neither pruned nor distilled; leave it out"
_NOT_IN_EVAL_OR_INFER = {
    "--slim_config": _NO_SLIM,
    "--slice_infer --slice_size --overlap_ratio --combine_method --match_threshold --match_metric": (
        "pictures are predicted whole; leave it out"
    ),
    "--use_vdl --vdl_log_dir": "curves are drawn by --logger tensorboard of solov2 train",
}


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


def _runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", "torch", "onnxruntime", "openvino", "fastest"),
        help="what runs an exported model; default: ONNX Runtime for .onnx, OpenVINO for .xml; fastest: what is "
        "faster with this file, on this machine",
    )


def _data(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--data", metavar="JSON", help=f"COCO json to {purpose}, instead of the recipe's")
    parser.add_argument("--images", metavar="DIR", help="folder of its pictures; default: the json's folder")
    _strict(parser)


def _several_data(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--data", nargs="+", metavar="JSON", help=f"COCO json to {purpose}; several are put together")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="DIR",
        help="folder of its pictures, or one for each json; default: the json's folder",
    )


def _strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="refuse data with defects instead of leaving them out")


def _train(parser: argparse.ArgumentParser) -> None:
    _config(parser, required=True)
    _several_data(parser, "train on, instead of the recipe's")
    _strict(parser)
    parser.add_argument(
        "--val", metavar="JSON", help="COCO json to evaluate on, instead of the recipe's; implies --eval"
    )
    parser.add_argument("--eval", action="store_true", help="evaluate at every snapshot and keep the best weights")
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
    _refuse(
        parser,
        {
            "--slim_config": _NO_SLIM,
            "--enable_ce": "runs are reproducible by their seed; set it with -o seed=0",
            "--fleet": "several machines train with --num-nodes or torchrun",
            "--use_vdl --vdl_log_dir": "curves are drawn by --logger tensorboard",
            "--use_wandb": "use --logger wandb",
            "--save_prediction_only": "it belongs to solov2 eval",
            "--profiler_options": "PyTorch's own profiler does that",
            "--save_proposals --proposals_path": "SOLOv2 has no proposals",
            "--to_static": "there is one form of the network",
        },
    )
    parser.set_defaults(module="train")


def _eval(parser: argparse.ArgumentParser) -> None:
    _config(parser, required=False)
    _data(parser, "evaluate on")
    parser.add_argument(
        "-w", "--weights", metavar="FILE", help="weights or exported file, or a name; default: the recipe's"
    )
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
    parser.add_argument(
        "--output_eval",
        metavar="DIR",
        help="write segm.json there, and with --classwise curves of precision over recall",
    )
    parser.add_argument(
        "--save_prediction_only", action="store_true", help="only write the results; the json needs no annotations"
    )
    parser.add_argument(
        "--json_eval",
        action="store_true",
        help="evaluate results written before: --json, or segm.json in --output_eval",
    )
    parser.add_argument("--boundary", action="store_true", help="boundary AP instead of mask AP (solov2[boundary])")
    parser.add_argument("--amp", action="store_true", help="run the network in half precision")
    _about_scores(parser)
    _device(parser)
    _runtime(parser)
    _refuse(parser, _NOT_IN_EVAL_OR_INFER | {"--bias": "masks have no boxes whose sides it could change"})
    parser.set_defaults(module="evaluate")


def _about_scores(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap", type=int, metavar="N", help="also 95 %% intervals of AP, from N resamples of the pictures"
    )
    parser.add_argument(
        "--reliability",
        metavar="FILE.json",
        help="write how often detections of a score are right, and a plot of it beside that",
    )
    parser.add_argument(
        "--calibrate",
        metavar="OUT.safetensors",
        help="write a copy of the weights whose scores are probabilities of being right, on these pictures",
    )
    parser.add_argument("--force", action="store_true", help="with --calibrate: replace OUT if it is there")


def _predict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("inputs", nargs="+", metavar="PICTURE", help="picture files, folders or glob patterns")
    parser.add_argument("-m", "--model", metavar="MODEL", help="name of a model, or a weights or exported file")
    parser.add_argument("-o", "--output", default="solov2_result", metavar="DIR", help="folder of the overlays")
    parser.add_argument("--threshold", type=float, help="least score, 0..1; default: the model's own")
    parser.add_argument("--json", metavar="FILE", help="write all instances as COCO records with RLE masks")
    _device(parser)
    _runtime(parser)
    parser.set_defaults(module="predict")


def _infer(parser: argparse.ArgumentParser) -> None:
    _config(parser, required=True)
    parser.add_argument("-w", "--weights", metavar="FILE", help="weights file, or a name; default: the recipe's")
    parser.add_argument("--infer_img", metavar="FILE", help="one picture; wins over --infer_dir")
    parser.add_argument("--infer_dir", metavar="DIR", help="a folder of pictures")
    parser.add_argument(
        "--infer_list", metavar="FILE", help="a text file with the names of pictures in --infer_dir, one per line"
    )
    parser.add_argument("--output_dir", default="output", metavar="DIR", help="folder of the overlays")
    parser.add_argument("--draw_threshold", type=float, default=0.5, help="least score, 0..1")
    parser.add_argument(
        "--save_results", type=_yes_or_no, default=False, metavar="BOOL", help="write segm.json into --output_dir"
    )
    parser.add_argument("--visualize", type=_yes_or_no, default=True, metavar="BOOL", help="draw overlays")
    _device(parser)
    _refuse(
        parser,
        _NOT_IN_EVAL_OR_INFER
        | {
            "--save_threshold": "it has no effect on masks there either; segm.json holds all instances",
            "--do_eval": "solov2 eval measures",
            "--rtn_im_file": "the table and segm.json name every picture",
        },
    )
    parser.set_defaults(module="infer")


def _run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="MODULE", help="solov2, the name of another model, a weights file, or a folder with one"
    )
    parser.add_argument("--input_path", required=True, metavar="PICTURE", help="the picture")
    parser.add_argument(
        "--threshold",
        "--score_thresh",
        type=float,
        default=0.5,
        metavar="SCORE",
        help="least score, 0..1; default: 0.5",
    )
    _flag_or_word(parser, "--visualization", "write an overlay into --save_dir")
    parser.add_argument(
        "--save_dir", "--output_dir", default="solov2_result", metavar="DIR", help="default: solov2_result"
    )
    _flag_or_word(parser, "--use_gpu", "predict on a GPU")
    parser.add_argument("--use_device", choices=("cpu", "gpu"), help="wins over --use_gpu")
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="accepted: there is one picture")
    parser.set_defaults(module="run")


def _flag_or_word(parser: argparse.ArgumentParser, flag: str, summary: str) -> None:
    parser.add_argument(flag, type=_yes_or_no, nargs="?", const=True, default=False, metavar="BOOL", help=summary)


def _install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="+", metavar="MODULE", help="solov2, or the name of another model; ==VERSION may follow"
    )
    parser.set_defaults(module="install")


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
        "--classes",
        metavar="FILE",
        help="class names: a COCO json, or text with one per line; default: the file's own, the data's, or COCO's",
    )
    parser.add_argument("--half", action="store_true", help="store convolutions as float16: half the size")
    parser.add_argument("--force", action="store_true", help="replace DST if it is there")
    parser.set_defaults(module="convert")


def _export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", required=True, metavar="MODEL", help="name of a model, or a weights file")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="ends in .onnx, .xml or .pt2")
    parser.add_argument("--format", choices=("onnx", "openvino", "torch"), help="default: by the name's ending")
    parser.add_argument(
        "--size",
        nargs="+",
        default=["dynamic"],
        metavar="SIDE",
        help="height and width of the only input size, multiples of 32; or dynamic, the default: any size",
    )
    parser.add_argument(
        "--static", action="store_true", help="with --size: no shape depends on the picture, as TensorRT wants it"
    )
    parser.add_argument(
        "--masks",
        choices=("network", "picture"),
        default="network",
        help="network: probabilities on the mask grid; picture: also masks at the picture's own size",
    )
    parser.add_argument("--half", action="store_true", help="16 bits: half the size, fast on GPUs")
    parser.add_argument("--int8", action="store_true", help="8 bits; needs --calibrate (solov2[int8])")
    parser.add_argument(
        "--calibrate",
        nargs="+",
        default=[],
        metavar="PICTURE",
        help="with --int8: files, folders or patterns that show the ranges of values, like those to come",
    )
    parser.add_argument("--data", metavar="JSON", help="with --int8: COCO json to measure on what it costs")
    parser.add_argument("--images", metavar="DIR", help="folder of its pictures; default: the json's folder")
    parser.add_argument("--accept", action="store_true", help="with --int8: keep FILE although it costs too much")
    parser.add_argument(
        "--pictures",
        nargs="+",
        default=[],
        metavar="PICTURE",
        help="files, folders or patterns to compare with PyTorch on; in a source checkout its examples are added",
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    parser.set_defaults(module="export")


def _look_at_data(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    summaries = {
        "check": "Report defects, counts, sizes and classes, what a recipe would not train, and settings that would.",
        "show": "Draw training samples, as the network is given them.",
    }
    for action, summary in summaries.items():
        command = actions.add_parser(action, help=summary, description=summary, formatter_class=parser.formatter_class)
        command.add_argument(
            "-c", "--config", default="nano", metavar="RECIPE", help="recipe file or name; default: nano"
        )
        _overrides(command)
        _several_data(command, "look at, instead of the recipe's TrainDataset")
        if action == "check":
            command.add_argument("--pictures", action="store_true", help="check the picture files too")
            command.add_argument("--json", metavar="FILE", help="write the report as JSON")
        else:
            command.add_argument("-n", "--number", type=int, default=8, metavar="N", help="how many; default: 8")
            command.add_argument("--output", default="solov2_samples", metavar="DIR", help="folder of the pictures")
            command.add_argument("--seed", type=int, metavar="N", help="which pictures, and how they are augmented")
            command.add_argument("--raw", action="store_true", help="as they are in the data set, not augmented")
    parser.set_defaults(module="data")


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
    "run": ("Predict one picture, with PaddleHub's flags.", _run),
    "install": ("Have a model here, under PaddleHub's command; solov2 zoo download does the same.", _install),
    "config": (
        "Show a recipe's settings and where they come from, check it, or list the shipped recipes.",
        _show_config,
    ),
    "data": ("Look at a data set before training: numbers, defects, pictures.", _look_at_data),
    "convert": ("Turn published weights into a file of this package.", _convert),
    "export": ("Write a model for other run times (ONNX, OpenVINO), and prove it against PyTorch.", _export),
    "bench": ("Measure where a prediction's time goes, and compare forms of a model.", add_bench),
    "serve": ("Answer requests over HTTP, and show a page for pictures.", add_serve),
    "serving": ("Start or stop the service, with PaddleHub's flags.", add_serving),
    "zoo": ("List the published models, download them, or verify what was downloaded.", _zoo),
}
