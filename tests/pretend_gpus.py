"""Stands for a machine with four GPUs, which compute on its CPU.

``python3 pretend_gpus.py -m <module> ...`` instead of ``python3 -m <module> ...``; ``-c`` and scripts as well.

Everything that starts and connects processes is what it is with GPUs: a process per GPU, started by the training's
first process. These import this file again, as multiprocessing does.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

import torch

GPUS = 4


def pretend() -> None:
    """Let the training see GPUs; the process of each works on the CPU then."""
    from flowavenet_plugin.tasks.vocoder import VocoderTask

    plain = VocoderTask.main_worker

    def main_worker(cls: type, args: argparse.Namespace) -> None:
        args.ngpu, args.dist_backend = 0, "gloo"
        plain(args)

    VocoderTask.main_worker = classmethod(main_worker)


torch.cuda.device_count = lambda: GPUS
if __name__ == "__mp_main__":
    pretend()
if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1])
    elif words[0] == "-m":
        if words[1].endswith("vocoder_train"):
            pretend()
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__")
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))  # as Python does for a script
        runpy.run_path(words[0], run_name="__main__")
