"""``python eval.py`` from a checkout, as the model zoo prints it: the same as ``solov2 eval``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from solov2.cli import main

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
