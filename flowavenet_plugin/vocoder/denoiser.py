"""Constant tones and hiss of a vocoder: how strong they are, and how to take them out of the sound."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.level import unchecked

N_FFT = 1024
#: A quiet mel: so many standard deviations below the mean of the training features, in each band.
QUIET = 2.0
#: Frames of it, and how many at each end don't count.
FRAMES, EDGE = 64, 8


class Denoiser:
    """Subtract from the spectrum what the vocoder says where there is nothing to say (known from WaveGlow).

    The magnitudes of the vocoder's output for a quiet mel without noise are its constant tones. They are subtracted
    from the magnitudes of the sound; phases stay.
    """

    def __init__(self, vocoder: AbsVocoder) -> None:
        """Measure the constant spectrum of a vocoder.

        Raises:
            ValueError: If its sound is refined, or made without a network: there are no constant tones in it.
        """
        if not (vocoder.trainable and vocoder.exact_stream):
            raise ValueError(
                f"the denoiser is for a network's own sound: that of {type(vocoder).__name__} has no constant tones. "
                "With a voice that is refined, refine=0 (--refine 0) goes with it"
            )
        quiet = vocoder.feats_mean - QUIET * vocoder.feats_std
        with unchecked(vocoder):  # features like these are nobody's
            wav = vocoder.inference(quiet.expand(FRAMES, -1), temperature=0.0, seed=0)
        self._window = torch.hann_window(N_FFT, dtype=wav.dtype, device=wav.device)
        inner = wav[EDGE * vocoder.hop_length : -EDGE * vocoder.hop_length]
        #: Mean magnitude per bin, shape (bins, 1).
        self.spectrum = self._stft(inner).abs().mean(dim=1, keepdim=True)

    def __call__(self, wav: Tensor, strength: float) -> Tensor:
        """Return the sound without the constant spectrum times ``strength``.

        Args:
            wav: Waveform, shape (samples,).
            strength: From 0: nothing is taken out; 1: all of it.

        Raises:
            ValueError: If the strength is below 0.
        """
        if not strength >= 0:
            raise ValueError(f"the denoiser's strength must be a number from 0, not {strength}")
        if strength == 0:
            return wav
        spectrum = self._stft(wav)
        magnitude = spectrum.abs()
        gain = (magnitude - strength * self.spectrum).clamp_(min=0) / magnitude.clamp(min=torch.finfo(wav.dtype).tiny)
        padded = torch.istft(spectrum * gain, N_FFT, N_FFT // 4, window=self._window)
        return padded[N_FFT : N_FFT + len(wav)]

    def _stft(self, wav: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(wav, (N_FFT, N_FFT + -len(wav) % (N_FFT // 4)))
        return torch.stft(padded, N_FFT, N_FFT // 4, window=self._window, return_complex=True)


def constant_tones(wav: Tensor, column: int) -> Tensor:
    """Measure tones at the multiples of the sampling rate over ``column``, which squeezing by ``column`` may leave.

    Args:
        wav: Waveform, shape (samples,), of some seconds.
        column: Samples per column, for instance ``vocoder.flow.column``.

    Returns:
        Of each multiple below half of the sampling rate, how far its power stands above that of its neighbourhood (the
        median of 8 bins, 2 to 5 bins away on both sides), in dB, shape (column / 2 - 1,).

    Raises:
        ValueError: If the waveform is shorter than 16 columns.
    """
    size = 16 * column
    if len(wav) < size:
        raise ValueError(f"{len(wav)} samples are too few to measure tones of {column} samples: at least {size}")
    window = torch.hann_window(size, dtype=wav.dtype, device=wav.device)
    spectrum = torch.stft(wav, size, size // 2, window=window, center=False, return_complex=True)
    power = spectrum.abs().square().mean(dim=1)
    tones = torch.arange(16, size // 2, 16, device=wav.device)
    around = torch.stack([power[tones + offset] for offset in (-5, -4, -3, -2, 2, 3, 4, 5)])
    tiny = torch.finfo(wav.dtype).tiny
    return 10 * torch.log10((power[tones] + tiny) / (around.median(dim=0).values + tiny))
