"""Make the mel-spectrogram of a sound what it should be.

A mel tells sums over the bins of a band, and neither their shares nor phases. Each iteration does two things:

- The STFT's magnitudes are multiplied so that their mel comes nearer to the one that is wanted. Each bin gets the
  product of its bands' quotients, wanted by there is, raised to the filters' weights. That is one step of the
  simultaneous multiplicative algebraic reconstruction technique (SMART): mirror descent of the Kullback-Leibler
  divergence from the mel that is there to the one that is wanted, which changes magnitudes as little as it can in
  the same measure and leaves phases alone. What is quiet beside its neighbours stays so: harmonics and noise keep
  their shape.
- The result is no STFT of any waveform. The inverse STFT is that of the nearest one (least squares), as in
  Griffin and Lim's algorithm.

So a point is looked for in both sets, spectra with that mel and spectra of waveforms, by alternating projections, the
first in Kullback and Leibler's measure; compare Masuyama, Ueno and Ono (arXiv 2307.12232), who join magnitude and phase
in least squares. The sets aren't convex, there is no proof that it converges; over-relaxation and momentum (Nenov,
Nguyen, Balazs and Bot, arXiv 2304.05905, whose constants for Griffin-Lim are others) make it much faster. All of that
is linear in the spectrum of waveforms, so it is done with waveforms, at no cost.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis, Layout

#: Largest step of a log-mel per iteration, natural logarithm: two decades. What was silent comes up in a few.
LARGEST_STEP = 4.6
#: Momentum towards the next spectrum, momentum that is kept, and over-relaxation.
MOMENTUM, KEPT, RELAXATION = 0.9, 1.1, 1.25
#: Iterations before that without them: far from the goal they overshoot.
PLAIN = 2


def check_iterations(iterations: int) -> int:
    """Return a number of iterations that is possible.

    Raises:
        ValueError: If it is no whole number from 0.
    """
    try:
        number = -1 if isinstance(iterations, bool) else operator.index(iterations)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"refine: the number of iterations must be a whole number from 0, not {iterations!r}")
    return number


def refine(analysis: FeatureAnalysis, wav: Tensor, feats: Tensor, iterations: int, layout: Layout) -> Tensor:
    """Bring sounds nearer to features.

    Args:
        analysis: Of the features.
        wav: Sounds to start from, shape (B, frames * hop_length), zeros beyond an end.
        feats: Un-normalised features, shape (B, frames, n_mels).
        iterations: How often; 0: the sounds come back as they are.
        layout: Of these utterances.

    Returns:
        Sounds, shape of ``wav``.
    """
    target = analysis.target(feats)
    point = kept = before = sound = wav
    for iteration in range(iterations):
        spectrum = analysis.spectrum(point, layout)
        error = (target - analysis.log_mel(spectrum)).clamp_(-LARGEST_STEP, LARGEST_STEP)
        sound = analysis.waveform(spectrum.mul_(analysis.gains(error)), layout)
        if iteration < PLAIN:
            point = kept = before = sound
            continue
        now = torch.lerp(kept, sound, RELAXATION)
        step = now - before
        point, kept, before = now + MOMENTUM * step, now + KEPT * step, now
    return sound


def log_mel_error(analysis: FeatureAnalysis, wav: Tensor, feats: Tensor, layout: Layout) -> Tensor:
    """Return the mean over frames and bands of the absolute difference of log-mels in dB, shape (B,).

    Arguments as of :func:`refine`.
    """
    difference = (analysis.log_mel(analysis.spectrum(wav, layout)) - analysis.target(feats)).abs()
    if layout.inside is None:
        return _decibel(analysis) * difference.mean(dim=(1, 2))
    difference = difference * layout.inside
    return _decibel(analysis) * difference.sum(dim=(1, 2)) / layout.inside.sum(dim=(1, 2)) / difference.shape[2]


def _decibel(analysis: FeatureAnalysis) -> float:
    return 8.685889638065037 / analysis.settings.power
