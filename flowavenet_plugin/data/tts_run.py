"""What ESPnet2's tts_inference leaves behind: features of generated speech, normalised and not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from flowavenet_plugin.data.scp import open_feats
from flowavenet_plugin.data.stats import read_stats


def check_not_normalised(scp: str | Path) -> None:
    """Refuse the list of normalised features of a run that holds them un-normalised, too.

    Args:
        scp: List of features, any.

    Raises:
        ValueError: If it is ``norm/feats.scp`` and there is ``denorm/feats.scp`` beside it.
    """
    folder = Path(scp).absolute().parent
    denorm = folder.parent / "denorm" / "feats.scp"
    if folder.name == "norm" and denorm.is_file():
        raise ValueError(f"{scp} holds normalised features, which make noise: give {denorm}")


class GeneratedFeats(Mapping):
    """Un-normalised features of a decoding run, ``exp/tts_x/decode_y/eval1``.

    ESPnet2 writes ``denorm/feats.scp`` where the model has a normaliser, and ``norm/feats.scp`` always. Entries are
    paths relative to the recipe: the folders above the list are tried as well.
    """

    def __init__(self, folder: str | Path, stats: str | Path | None = None) -> None:
        """Find the list.

        Args:
            folder: The run's folder.
            stats: feats_stats.npz of the TTS model's training features (``exp/tts_stats_*/train/feats_stats.npz``),
                needed where only normalised features are there.

        Raises:
            FileNotFoundError: If neither list, or no statistics file, is there.
            ValueError: If there are normalised features only, and no statistics.
        """
        folder = Path(folder)
        denorm, norm = folder / "denorm" / "feats.scp", folder / "norm" / "feats.scp"
        self.mean, self.std = 0.0, 1.0
        if denorm.is_file():
            self.scp = denorm
        elif not norm.is_file():
            raise FileNotFoundError(
                f"{folder} holds neither denorm/feats.scp nor norm/feats.scp of ESPnet2's tts_inference"
            )
        elif stats is None:
            raise ValueError(
                f"{folder} holds normalised features only (norm/feats.scp): give the TTS model's statistics, "
                "--tts_stats exp/tts_stats_x/train/feats_stats.npz; or --tts_stats none if it does not normalise"
            )
        else:
            self.scp = norm
            if str(stats) != "none":
                self.mean, self.std = read_stats(stats)
        self._feats = open_feats(self.scp)

    def __len__(self) -> int:
        return len(self._feats)

    def __iter__(self) -> Iterator[str]:
        return iter(self._feats)

    def __contains__(self, utt: object) -> bool:
        return utt in self._feats

    def shape(self, utt: str) -> tuple[int, int]:
        """(frames, dim) of an utterance; ValueError if they can't be read."""
        return self._feats.shape(utt)

    def __getitem__(self, utt: str) -> np.ndarray:
        """Un-normalised features of an utterance, float32, shape (frames, dim).

        Raises:
            ValueError: If they can't be read, or the statistics have another dimension.
        """
        feats = self._feats[utt]
        if np.ndim(self.mean) and feats.shape[1] != len(self.mean):
            raise ValueError(f"{utt}: features of {feats.shape[1]} bands, the statistics have {len(self.mean)}")
        return (feats * self.std + self.mean).astype(np.float32)
