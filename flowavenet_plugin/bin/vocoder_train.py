"""Train a vocoder: ``python -m flowavenet_plugin.bin.vocoder_train --help``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

with contextlib.redirect_stdout(sys.stderr):  # ESPnet2 prints at import, and stdout belongs to --print_config
    from flowavenet_plugin.tasks.vocoder import VocoderTask


def get_parser() -> argparse.ArgumentParser:
    """Return the task's command line."""
    return VocoderTask.get_parser()


def main(cmd: Sequence[str] | None = None) -> None:
    """Train as the command line says.

    Args:
        cmd: Arguments; default: those of the process.
    """
    VocoderTask.main(cmd=cmd)


if __name__ == "__main__":
    main()
