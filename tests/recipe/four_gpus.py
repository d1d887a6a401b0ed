"""Stands for Python on a machine of four GPUs: ``python3 four_gpus.py -m module ...``, or ``-c code``, or a script.

PyTorch counts four devices. Each process that ESPnet2 starts for one of them trains on the CPU instead, and gloo joins
them; what decodes or scores on a GPU does so on the CPU. Scripts and modules that were run are written to the file
``ran`` beside this one. run.sh finds the devices, too, where GPUS_HERE is set: it asks only without a cluster.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def have_four_gpus() -> None:
    """Replace what asks for devices, in this process and in those that ESPnet2 starts from it."""
    import torch

    from flowavenet_plugin.tasks.vocoder import VocoderTask

    torch.cuda.device_count = lambda: 4
    train = VocoderTask.main_worker.__func__

    def main_worker(cls: type, args: object) -> None:
        args.ngpu, args.dist_backend = 0, "gloo"
        train(cls, args)

    VocoderTask.main_worker = classmethod(main_worker)


def main(words: list[str]) -> None:
    kind, what = (words[0], words[1]) if words[0] in ("-m", "-c") else ("", words[0])
    with (Path(__file__).parent / "ran").open("a") as ran:
        ran.write(f"{what}\n")
    sys.argv = words[1:] if kind else words
    if what == "flowavenet_plugin.bin.vocoder_train":
        have_four_gpus()
        from flowavenet_plugin.bin import vocoder_train

        vocoder_train.main()
    elif kind == "-m":
        if what.startswith("flowavenet_plugin.bin.") and "--ngpu" in words:
            sys.argv[sys.argv.index("--ngpu") + 1] = "0"
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv[0] = "-c"
        if "GPUS_HERE" in os.environ and "device_count" in what:
            import torch

            torch.cuda.device_count = lambda: 4
        exec(what, {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(what).parent))
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
elif __name__ == "__mp_main__":  # a process that ESPnet2 started
    have_four_gpus()
