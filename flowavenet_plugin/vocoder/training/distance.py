"""How far sampled speech is from the recording, by spectra: phases, which noise decides, don't count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.vocoder.inversion.mel_bands import mel_filters
from flowavenet_plugin.vocoder.inversion.settings import FeatureSettings

#: FFT size, hop and window in samples at the rate in Hz of Parallel WaveGAN's (Yamamoto et al., arXiv 1910.11480).
RESOLUTIONS, RATE = ((2048, 240, 1200), (1024, 120, 600), (512, 50, 240)), 24000
#: Least amplitude of a bin, and of a band: some 16-bit steps, summed by the window.
FLOOR = 1e-4


class SpectralDistance(nn.Module):
    """Distance of STFT magnitudes in several resolutions, and of the log-mel."""

    def __init__(self, settings: FeatureSettings) -> None:
        """Make the tables.

        Args:
            settings: Of the features.
        """
        super().__init__()
        self._resolutions = []
        for number, (n_fft, hop, size) in enumerate(RESOLUTIONS):
            scale = settings.fs / RATE
            size, hop = max(4, round(size * scale)), max(1, round(hop * scale))
            self._resolutions.append((1 << (max(size, round(n_fft * scale)) - 1).bit_length(), hop))
            self.register_buffer(f"_window{number}", _hann(size), persistent=False)
        self._mel = settings.n_fft, settings.hop_length
        self.register_buffer("_window", _hann(settings.win_length), persistent=False)
        self.register_buffer("_filters", mel_filters(settings).float().T.contiguous(), persistent=False)

    def forward(self, made: Tensor, wanted: Tensor, lengths: Tensor | None = None) -> dict[str, Tensor]:
        """Compare; items count by their lengths.

        Args:
            made: Sampled speech, shape (B, samples).
            wanted: Recordings, same shape.
            lengths: Samples of each item, shape (B,); what lies beyond isn't compared. None: all.

        Returns:
            ``sampled_stft``: spectral convergence and mean difference of log-magnitudes (nats), mean of the
            resolutions; ``sampled_mel``: mean difference of the log-mel (nats); 0-dim each.
        """
        share = None if lengths is None else lengths / lengths.sum()
        stft = made.new_zeros(())
        for number, (n_fft, hop) in enumerate(self._resolutions):
            ours, theirs = (self._magnitude(x, n_fft, hop, getattr(self, f"_window{number}")) for x in (made, wanted))
            inside = _inside(ours, hop, lengths)
            apart, size = ((x * inside).square().sum(dim=(1, 2)).sqrt() for x in (ours - theirs, theirs))
            items = apart / size.clamp(min=FLOOR) + _mean((ours.log() - theirs.log()).abs(), inside)
            stft = stft + _over_items(items, share)
        n_fft, hop = self._mel
        mels = (exact_product(self._magnitude(x, n_fft, hop, self._window), self._filters) for x in (made, wanted))
        ours, theirs = (mel.clamp(min=FLOOR).log() for mel in mels)
        mel = _over_items(_mean((ours - theirs).abs(), _inside(ours, hop, lengths)), share)
        return dict(sampled_stft=stft / len(self._resolutions), sampled_mel=mel)

    def _magnitude(self, wav: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
        """Return magnitudes, at least :data:`FLOOR`, shape (B, frames, bins)."""
        padding = "reflect" if wav.shape[1] > n_fft // 2 else "constant"
        spectrum = torch.stft(wav, n_fft, hop, len(window), window, pad_mode=padding, return_complex=True)
        power = torch.view_as_real(spectrum).square().sum(dim=-1)
        return power.clamp(min=FLOOR**2).sqrt().mT


def _hann(size: int) -> Tensor:
    return torch.hann_window(size, dtype=torch.float64).float()  # whatever the default type is


def _inside(values: Tensor, hop: int, lengths: Tensor | None) -> Tensor:
    """Return 1 for frames (B, frames, 1) whose middle is within an item, else 0."""
    if lengths is None:
        return values.new_ones(len(values), values.shape[1], 1)
    middles = torch.arange(values.shape[1], device=values.device) * hop
    return (middles < lengths[:, None]).to(values)[..., None]


def _mean(values: Tensor, inside: Tensor) -> Tensor:
    """Return the mean over frames and bins of each item, (B,)."""
    return (values * inside).sum(dim=(1, 2)) / (inside.sum(dim=(1, 2)) * values.shape[2])


def _over_items(values: Tensor, share: Tensor | None) -> Tensor:
    return values.mean() if share is None else (values * share).sum()
