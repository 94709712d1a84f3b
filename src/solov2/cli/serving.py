"""solov2 serving start | stop: the service under PaddleHub's words."""

from __future__ import annotations

import argparse

from solov2.cli import serve


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    if arguments.action == "start":
        return serve.run(arguments)
    from solov2.serve.process import stop

    stop(arguments.port)
    print(f"the service on port {arguments.port} has ended")
    return 0
