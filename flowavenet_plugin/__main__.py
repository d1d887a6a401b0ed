"""Run a Python program so that ESPnet2's tasks accept our vocoders: the door for recipes.

    python3 -m flowavenet_plugin -m espnet2.bin.tts_inference --vocoder_file exp/voc_x/valid.loss.best.pth ...

In an unmodified ``tts.sh``: ``--python "python3 -m flowavenet_plugin" --vocoder_file ...``. After ``-m MODULE``, a
script's path or ``-c CODE`` come the program's own arguments, as after ``python3``; other options of the interpreter
belong before ``-m flowavenet_plugin``.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

from flowavenet_plugin.tasks.tts_adapter import install

USAGE = "usage: python3 -m flowavenet_plugin (-m MODULE | SCRIPT | -c CODE) [argument ...]"


def main() -> None:
    """Install the adapter, then run what the command line names as Python itself would."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(f"{USAGE}\n\n{__doc__}", file=sys.stdout if words else sys.stderr)
        sys.exit(0 if words else 2)
    install()
    if words[0] in ("-m", "-c") and len(words) < 2:
        print(f"{USAGE}\nargument expected for {words[0]}", file=sys.stderr)
        sys.exit(2)
    if words[0] == "-m":
        sys.argv = words[1:]  # run_module puts the module's path into the first place
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        _run_code(words[1], words[2:])
    elif words[0].startswith("-"):
        print(f"{USAGE}\nunknown option {words[0]}: options of the interpreter belong before -m", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")


def _run_code(code: str, arguments: list[str]) -> None:
    sys.argv = ["-c", *arguments]
    sys.path[0] = ""
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    exec(compile(code, "<string>", "exec"), module.__dict__)


if __name__ == "__main__":
    main()
