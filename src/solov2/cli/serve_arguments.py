"""The flags of ``solov2 serve`` and ``solov2 serving``: PaddleHub's, and those of our own."""

from __future__ import annotations

import argparse


def add_serve(parser: argparse.ArgumentParser) -> None:
    """The flags of a service's start."""
    parser.add_argument(
        "-m",
        "--modules",
        nargs="+",
        action="extend",
        metavar="MODEL",
        help="names of models, weights or exported files; solov2, the default, is the package's own model or the one "
        "that SOLOV2_MODEL names. The first one answers where a request names none",
    )
    parser.add_argument("-p", "--port", type=int, metavar="N", help="default: 8866")
    parser.add_argument("--host", metavar="ADDRESS", help="to listen on; default: 127.0.0.1, this machine alone")
    parser.add_argument("-c", "--config", metavar="JSON", help="PaddleHub's configuration file; flags win over it")
    _device(parser)
    parser.add_argument(
        "--api-key", metavar="KEY", help="what clients have to send; better in the environment as SOLOV2_API_KEY"
    )
    parser.add_argument(
        "--cors",
        nargs="+",
        action="extend",
        metavar="ORIGIN",
        help="web origins whose pages may use the service; * for all",
    )
    parser.add_argument(
        "--save_dir", metavar="DIR", help="folder for the pictures that visualization in PaddleHub's requests draws"
    )
    _limits(parser)
    for flag in ("--use_multiprocess", "--use_singleprocess"):
        parser.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    for flags in (("-w", "--workers"), ("-mi", "--modules_info")):
        parser.add_argument(*flags, help=argparse.SUPPRESS)
    parser.set_defaults(module="serve")


def add_serving(parser: argparse.ArgumentParser) -> None:
    """``start`` and ``stop``, as PaddleHub has them."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    summaries = {"start": "Start the service; it runs until it is stopped.", "stop": "Stop the service on a port."}
    for action, summary in summaries.items():
        command = actions.add_parser(action, help=summary, description=summary, formatter_class=parser.formatter_class)
        if action == "start":
            add_serve(command)
        else:
            command.add_argument("-p", "--port", type=int, default=8866, metavar="N", help="default: 8866")
        command.set_defaults(module="serving")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--use_gpu",
        action="store_true",
        default=None,
        help="run on a GPU; without it the CPU, unless CUDA_VISIBLE_DEVICES names a GPU",
    )
    parser.add_argument("-i", "--gpu", metavar="N", help="which one, with --use_gpu; default: 0")
    parser.add_argument("--device", help="auto (a GPU where there is one), cpu, cuda, cuda:N, mps; wins over --use_gpu")
    parser.add_argument(
        "--runtime",
        default="auto",
        choices=("auto", "torch", "onnxruntime", "openvino"),
        help="what runs an exported model; default: ONNX Runtime for .onnx, OpenVINO for .xml",
    )


def _limits(parser: argparse.ArgumentParser) -> None:
    limits: tuple[tuple[str, type, str, str], ...] = (
        ("queue", int, "N", "pictures that may wait; one more is answered 503 (64)"),
        ("batch", int, "N", "pictures that go through the network together at most (8)"),
        ("batch-wait", float, "MS", "milliseconds that a picture waits for others that are being decoded (10)"),
        ("deadline", float, "S", "seconds to a result; 504 after that (30)"),
        ("max-body", float, "MB", "of one request (32)"),
        ("max-pixels", float, "MP", "millions of pixels of one picture (50)"),
        ("max-images", int, "N", "pictures of one request (16)"),
    )
    group = parser.add_argument_group("limits")
    for name, kind, metavar, text in limits:
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
