"""python -m solov2."""

import sys

from solov2.cli import main

sys.exit(main())
