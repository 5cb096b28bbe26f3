"""``python -m vipaint_ops.cli`` is ``vipaint``."""

import sys

from . import main

sys.exit(main())
