"""Runs ``vipaint`` as ``python -m vipaint_ops.cli``."""

import sys

from . import main

sys.exit(main())
