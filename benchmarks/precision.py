"""How far float32 and bfloat16 are from float64, for ``synthesis.py``: on random weights and on trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

import torch
from torch import Tensor

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow


@torch.no_grad()
def precision(flow: FloWaveNet, noise: Tensor, cond: Tensor, types: Mapping[str, torch.dtype]) -> dict[str, float]:
    """Compare with float64, whose weights are those of ``flow``.

    Args:
        flow: In float32, also afterwards.
        noise: Shape (1, 1, T).
        cond: Shape (1, n_mels, frames).
        types: Precisions inside the WaveNets.

    Returns:
        SNR (dB) and log-spectral distance (dB) of each.
    """
    outs = {name: PreparedFlow(flow, dtype).inverse(noise, cond).double()[0, 0] for name, dtype in types.items()}
    exact = PreparedFlow(flow.double()).inverse(noise.double(), cond.double())[0, 0]
    flow.float()  # exactly what it was
    figures = {}
    for name, out in outs.items():
        figures[f"{name}_snr"] = 10 * torch.log10(exact.square().sum() / (out - exact).square().sum()).item()
        figures[f"{name}_lsd"] = log_spectral_distance(out, exact)
    return figures


def trained_precision(
    model_file: str, feats_scp: str, seconds: float, count: int, device: str, types: Mapping[str, torch.dtype]
) -> list[dict[str, object]]:
    """Compare on a trained model's weights and the first utterances of a list, ``seconds`` of each at most.

    Raises:
        ValueError: If the model is no FloWaveNet.
    """
    from flowavenet_plugin import load_vocoder
    from flowavenet_plugin.data.scp import open_feats
    from flowavenet_plugin.vocoder.noise import NoiseSource
    from flowavenet_plugin.vocoder.seeds import noise_seed

    vocoder = load_vocoder(model_file, device=device, refine=0)
    if not hasattr(vocoder, "flow"):
        raise ValueError(f"{model_file} is a {type(vocoder).__name__}, which has no flow")
    rows: list[dict[str, object]] = []
    for utterance, values in islice(open_feats(feats_scp).items(), count):
        feats = torch.from_numpy(values[: max(1, round(seconds * vocoder.fs / vocoder.hop_length))])
        noise = vocoder.temperature * NoiseSource(noise_seed(0, feats)).draw(len(feats) * vocoder.hop_length)
        cond = vocoder.normalize(feats.to(device)).t()[None]
        rows.append(dict(utterance=utterance, **precision(vocoder.flow, noise.to(device)[None, None], cond, types)))
    return rows


def log_spectral_distance(x: Tensor, y: Tensor) -> float:
    """Return the mean over frames of the root mean square over bins of the difference of log power spectra, in dB."""
    window = torch.hann_window(1024, dtype=x.dtype, device=x.device)
    spectra = [torch.stft(wav, 1024, 256, window=window, return_complex=True).abs().clamp(min=1e-8) for wav in (x, y)]
    difference = 20 * torch.log10(spectra[0] / spectra[1])
    return difference.square().mean(dim=0).sqrt().mean().item()
