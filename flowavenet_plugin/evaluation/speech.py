"""A recording and what is computed from it once, however many others it is compared with."""

from __future__ import annotations

from functools import cached_property

import librosa
import numpy as np

from flowavenet_plugin.evaluation import mel_cepstrum, mos, periodicity
from flowavenet_plugin.evaluation.metrics import DYNAMIC_RANGE

#: Peak below which there is nothing to hear or to compare; full scale is 1.
SILENCE_PEAK = 1e-3


class Speech:
    """A waveform with its analyses, each made when first asked for.

    Frames are 5 ms apart; ``f0`` and ``cepstrum`` need the package pyworld.
    """

    def __init__(self, wav: np.ndarray, fs: int) -> None:
        """Keep the waveform.

        Args:
            wav: Shape (samples,).
            fs: Sampling rate in Hz.
        """
        self.wav, self.fs = wav, fs
        self._resampled = (fs, wav)

    def cut(self, samples: int) -> Speech:
        """Return the first samples; itself, with all analyses, if there are no more."""
        return self if samples == len(self.wav) else Speech(self.wav[:samples], self.fs)

    @cached_property
    def silent(self) -> bool:
        """Whether there is nothing to hear."""
        return not self.wav.size or float(np.abs(self.wav).max()) < SILENCE_PEAK

    @cached_property
    def f0(self) -> np.ndarray:
        """WORLD's fundamental frequency (Dio, refined by StoneMask) in Hz, 0 where unvoiced, shape (frames,)."""
        import pyworld

        low, high = periodicity.F0_RANGE
        wav = self.wav.astype(np.float64)
        coarse, times = pyworld.dio(wav, self.fs, f0_floor=low, f0_ceil=high, frame_period=5.0)
        return pyworld.stonemask(wav, coarse, times, self.fs)

    @cached_property
    def cepstrum(self) -> np.ndarray:
        """Mel-cepstra of WORLD's envelope (CheapTrick), shape (frames, order + 1).

        Power is raised to 80 dB below the envelope's loudest point: what lies deeper is inaudible, and an empty band
        above a vocoder's mel range would otherwise count for more than all speech.
        """
        import pyworld

        times = np.arange(len(self.f0)) * periodicity.FRAME_SECONDS
        power = pyworld.cheaptrick(self.wav.astype(np.float64), self.f0, times, self.fs)
        power = np.maximum(power, power.max() * 10.0 ** (-DYNAMIC_RANGE / 10.0))
        return mel_cepstrum.mel_cepstrum(power, *mel_cepstrum.settings(self.fs))

    @cached_property
    def periodicity(self) -> np.ndarray:
        """From 0 to 1, shape (frames,)."""
        return periodicity.periodicity(self.wav, self.fs)

    @cached_property
    def active(self) -> np.ndarray:
        """Which frames aren't a pause, shape (frames,)."""
        return periodicity.active_frames(self.wav, self.fs)

    @cached_property
    def distill_mos(self) -> float:
        """Quality as Distill-MOS hears it, 1 to 5; needs the package distillmos."""
        return mos.distill_mos(self.at(mos.RATE))

    @cached_property
    def dnsmos(self) -> tuple[float, float]:
        """Quality as DNSMOS hears it, overall by ITU-T P.835 and by P.808, 1 to 5; needs the package speechmos."""
        return mos.dnsmos(self.at(mos.RATE))

    def at(self, fs: int) -> np.ndarray:
        """Resample (soxr, high quality) to a rate in Hz; the last result is kept."""
        if self._resampled[0] != fs:
            self._resampled = (fs, librosa.resample(self.wav, orig_sr=self.fs, target_sr=fs))
        return self._resampled[1]
