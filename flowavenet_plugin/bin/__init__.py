"""Commands, run as ``python -m flowavenet_plugin.bin.<name>``."""

import os

# Threads that wait for each other spin for a third of a millisecond and more unless told otherwise. Beside other work
# the one that they wait for has no core meanwhile: they keep it from getting one. OpenMP's library reads these once,
# with torch, which is imported later. Figures: docs/performance.md, "Beside other work".
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "1000"
