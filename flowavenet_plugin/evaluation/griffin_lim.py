"""Griffin-Lim: the baseline without a network, from the very features that a vocoder is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import librosa
import numpy as np

ITERATIONS = 64


class GriffinLim:
    """Features to waveform: the mel filters' pseudo-inverse, then librosa's fast Griffin-Lim.

    Args:
        kind: Feature type, ``fbank`` (ESPnet2's log-mel) or ``original`` (the original FloWaveNet's mel).
        settings: All settings of it, as in feats_extract.yaml.
        seed: Start of the random phases; the same sound each time.

    Raises:
        ValueError: On another feature type.
    """

    def __init__(self, kind: str, settings: Mapping[str, Any], seed: int = 0) -> None:
        if kind not in ("fbank", "original"):
            raise ValueError(f"Griffin-Lim: unknown feature type '{kind}'; there are: fbank, original")
        self.kind, self.settings, self.seed = kind, settings, seed
        self.fs, self.n_fft = settings["fs"], settings["n_fft"]
        filters = librosa.filters.mel(
            sr=self.fs,
            n_fft=self.n_fft,
            n_mels=settings["n_mels"],
            fmin=settings["fmin"] or 0.0,
            fmax=settings["fmax"] or self.fs / 2,
            htk=settings.get("htk", False),
        )
        self._inverse = np.linalg.pinv(filters).T  # (n_mels, n_fft / 2 + 1)

    def magnitudes(self, feats: np.ndarray) -> np.ndarray:
        """Magnitude spectrum, shape (frames, n_fft / 2 + 1), of features (frames, n_mels)."""
        if self.kind == "original":  # 0 ... 1 stands for -100 ... 0 dB, 20 log10(power) - 20
            mel = 10.0 ** ((100.0 * feats - 80.0) / 20.0)
            return np.sqrt(np.maximum(mel @ self._inverse, 0.0))
        base = self.settings.get("log_base", 10.0) or np.e
        divisor = np.sqrt(self.n_fft) if self.settings.get("normalized") else 1.0
        return divisor * np.maximum(base**feats @ self._inverse, 0.0)

    def __call__(self, feats: np.ndarray) -> np.ndarray:
        """Synthesise.

        Args:
            feats: Un-normalised features, shape (frames, n_mels).

        Returns:
            Waveform, shape (frames * hop,); the last hop is silence, since centred frames don't cover it.
        """
        hop = self.settings["hop_length"]
        wav = librosa.griffinlim(
            self.magnitudes(feats).T,
            n_iter=ITERATIONS,
            n_fft=self.n_fft,
            hop_length=hop,
            win_length=self.settings["win_length"],
            window=self.settings["window"] or "boxcar",
            random_state=self.seed,
        )
        return np.pad(wav, (0, len(feats) * hop - len(wav))).astype(np.float32)
