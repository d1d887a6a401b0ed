"""ESPnet2's tasks that end in a vocoder (TTS, TTS2, SVS, S2ST) also accept ours.

ESPnet2 202511 takes ParallelWaveGAN's ``.pkl`` files only and raises ``ValueError`` for all else; after
:func:`install` its ``build_vocoder_from_file`` loads everything but ``.pkl`` by ``load_vocoder``. Griffin-Lim and
``.pkl`` go to ESPnet2's own code as before.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

#: Modules of ESPnet2 whose task class builds vocoders.
TASKS = {
    "espnet2.tasks.tts": "TTSTask",
    "espnet2.tasks.tts2": "TTS2Task",
    "espnet2.tasks.svs": "SVSTask",
    "espnet2.tasks.s2st": "S2STTask",
}


def install() -> None:
    """Teach ESPnet2's tasks our vocoders: those imported already now, the others when they are imported.

    Nothing of ESPnet2 is imported here. A second call changes nothing.
    """
    for name in TASKS:
        if name in sys.modules:
            _patch(sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the task modules as Python would, and patches each when it has been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in TASKS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    """A module's own loader, then the patch."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # get_code and others, which runpy asks for

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _patch(module)


def _patch(module: ModuleType) -> None:
    task = getattr(module, TASKS[module.__name__])
    original = task.__dict__["build_vocoder_from_file"]
    if getattr(original.__func__, "accepts_flowavenet", False):
        return

    def build_vocoder_from_file(
        cls: type,
        vocoder_config_file: str | os.PathLike[str] | None = None,
        vocoder_file: str | os.PathLike[str] | None = None,
        model: Any = None,
        device: str = "cpu",
    ) -> Any:
        """Build a vocoder from its files; see ``flowavenet_plugin.tasks.tts_adapter``."""
        if vocoder_file is None or str(vocoder_file).endswith(".pkl"):
            return original.__func__(cls, vocoder_config_file, vocoder_file, model, device)
        return build_vocoder(vocoder_config_file, vocoder_file, model, device)

    build_vocoder_from_file.accepts_flowavenet = True
    task.build_vocoder_from_file = classmethod(build_vocoder_from_file)


def build_vocoder(
    config_file: str | os.PathLike[str] | None, model_file: str | os.PathLike[str], model: Any, device: str
) -> Any:
    """Load one of our vocoders for an ESPnet2 model.

    Args:
        config_file: Its configuration; None: config.yaml beside the weights.
        model_file: Weights, for instance ``exp/voc_x/valid.loss.best.pth``.
        model: The model whose features it will get, or None.
        device: Where to put it.

    Returns:
        A module that maps un-normalised features (frames, n_mels) to a waveform (samples,), with ``fs`` in Hz.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the files are none of a vocoder, or its features aren't those that the model makes.
    """
    from flowavenet_plugin.tasks.compatibility import check_features
    from flowavenet_plugin.tasks.text2speech_vocoder import Text2SpeechVocoder
    from flowavenet_plugin.vocoder.loading import load_vocoder

    vocoder = load_vocoder(Path(model_file), config_file, device)
    check_features(model, vocoder)
    return Text2SpeechVocoder(vocoder)
