"""What listeners would say of speech, as networks guess it that were trained on their opinions; 1 to 5, 16 kHz.

They hear the speech alone and need no recording to compare it with, so natural speech has figures, too. The weights are
part of the packages distillmos and speechmos.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

#: Sampling rate in Hz.
RATE = 16000


def _once(listen: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    """Remember what was said of a sound: natural speech is heard again with each temperature of a sweep."""
    known: dict[bytes, Any] = {}

    @functools.wraps(listen)
    def remember(wav: np.ndarray) -> Any:
        key = hashlib.blake2b(np.ascontiguousarray(wav).tobytes(), digest_size=16).digest()
        if key not in known:
            known[key] = listen(wav)
        return known[key]

    return remember


@_once
def distill_mos(wav: np.ndarray) -> float:
    """Distill-MOS (Stahl and Gamper 2025, arXiv 2502.05356): mean over windows of 7.68 s at most 1 s apart.

    Args:
        wav: Speech of 16 kHz, shape (samples,).

    Returns:
        Mean opinion score of quality (ITU-T P.800), 1 to 5; NaN for silence.
    """
    import torch

    if not wav.any():
        return math.nan
    with torch.inference_mode():
        return float(_distillmos()(torch.from_numpy(np.ascontiguousarray(wav, dtype=np.float32))[None]))


@cache
def _distillmos() -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # it says where its weights are
        return importlib.import_module("distillmos").ConvTransformerSQAModel().eval()


@_once
def dnsmos(wav: np.ndarray) -> tuple[float, float]:
    """DNSMOS (Reddy et al. 2021 and 2022, arXiv 2010.15258 and 2110.01763): mean over windows of 9.01 s, 1 s apart.

    Shorter speech is repeated. What lies beyond full scale is clipped, as in a file.

    Args:
        wav: Speech of 16 kHz, shape (samples,).

    Returns:
        Overall quality by ITU-T P.835 (1 to 5), and quality by P.808 (1 to 5); NaN for silence.
    """
    if not wav.any():
        return math.nan, math.nan
    answer = _dnsmos()(np.clip(np.asarray(wav, dtype=np.float32), -1.0, 1.0), RATE, False)
    return float(answer["ovrl_mos"]), float(answer["p808_mos"])


@cache
def _dnsmos() -> Any:
    """Load the networks, with as many threads as torch has: the runtime's own would be all, and they spin."""
    import onnxruntime
    import torch

    module = importlib.import_module("speechmos.dnsmos")
    folder = Path(module.__file__).parent / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = module.DNSMOS.__new__(module.DNSMOS)  # its constructor takes no options of the runtime
    for attribute, name in (("onnx_sess", "sig_bak_ovr.onnx"), ("p808_onnx_sess", "model_v8.onnx")):
        session = onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        setattr(model, attribute, session)
    return model
