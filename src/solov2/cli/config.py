"""solov2 config: what a recipe says, and where each value comes from; needs no PyTorch."""

from __future__ import annotations

import argparse
import json

from solov2.config import describe, load, shipped_recipes
from solov2.errors import ConfigError


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    if arguments.action == "list":
        print("\n".join(shipped_recipes()))
        return 0
    if arguments.config is None:
        raise ConfigError(f"solov2 config {arguments.action} needs a recipe: -c FILE or -c NAME")
    loaded = load(arguments.config, arguments.opt)
    if arguments.action == "check":
        print(f"{loaded.path}: no problem found")
        return 0
    rows = [(key, json.dumps(value, ensure_ascii=False), origin) for key, value, origin in describe(loaded)]
    width = max(len(key) for key, _, _ in rows)
    for key, value, origin in rows:
        print(f"{key:<{width}}  {value}  [{origin}]")
    return 0
