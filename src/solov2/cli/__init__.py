"""The command line: one module per command, imported only when its command runs."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from rich_argparse import RichHelpFormatter

from solov2.cli.arguments import COMMANDS
from solov2.errors import Solov2Error
from solov2.version import __version__

FAILED = 1
WRONG_INPUT = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: words after the program's name; default: those of this process.

    Returns:
        0; 1 when some of the pictures failed; 2 when the input is wrong; 130 when interrupted.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    run: Callable[[argparse.Namespace], int] = import_module(f"solov2.cli.{arguments.module}").run
    try:
        code = run(arguments)
        sys.stdout.flush()  # here, where a reader that has gone away can still be told from an error
        return code
    except Solov2Error as error:
        print(f"solov2: error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("solov2: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has seen enough
        with contextlib.suppress(OSError):  # what is still buffered must not fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"solov2: error: {error}", file=sys.stderr)
        return WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="solov2",
        description="SOLOv2 instance segmentation: every object of a picture as a mask with a class and a score.",
        formatter_class=RichHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"solov2 {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (summary, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, formatter_class=RichHelpFormatter)
        add_arguments(command)
    return parser
