"""Commands, run as ``python -m flowavenet_plugin.bin.<name>``."""

import os
import sys

from flowavenet_plugin.bin.waiting import choose_waiting

if "torch" not in sys.modules:  # else it is too late
    choose_waiting(os.environ)
