"""Names of vocoders in configurations (``--vocoder NAME``) and the classes they stand for."""

from __future__ import annotations

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.mel_inversion_vocoder import MelInversionVocoder

VOCODERS: dict[str, type[AbsVocoder]] = {"flowavenet": FloWaveNetVocoder, "mel_inversion": MelInversionVocoder}


def register_vocoder(name: str, vocoder_class: type[AbsVocoder]) -> None:
    """Make a vocoder class known under a name, for training, decoding and loading alike.

    Args:
        name: Lower case, as ESPnet2 compares names in lower case.
        vocoder_class: A subclass of :class:`AbsVocoder` whose constructor takes ``fs``, ``hop_length``, ``n_mels`` and
            its own options (``--vocoder_conf``) by keyword.

    Raises:
        ValueError: If the name isn't lower case or stands for another class already.
        TypeError: If the class is no :class:`AbsVocoder`.
    """
    if name != name.lower():
        raise ValueError(f"a vocoder's name must be lower case, not {name!r}")
    if not (isinstance(vocoder_class, type) and issubclass(vocoder_class, AbsVocoder)):
        raise TypeError(f"{vocoder_class!r} is not a subclass of AbsVocoder")
    if VOCODERS.get(name, vocoder_class) is not vocoder_class:
        raise ValueError(f"vocoder {name!r} is {VOCODERS[name].__name__} already, not {vocoder_class.__name__}")
    VOCODERS[name] = vocoder_class


def build_vocoder(name: str, fs: int, hop_length: int, n_mels: int, conf: dict[str, object]) -> AbsVocoder:
    """Build a vocoder from a configuration.

    Args:
        name: Name in :data:`VOCODERS`.
        fs: Sampling rate in Hz.
        hop_length: Samples per frame.
        n_mels: Mel bands.
        conf: Further constructor arguments (``vocoder_conf``).

    Raises:
        ValueError: If the name is unknown, or the class doesn't take an argument.
    """
    if name not in VOCODERS:
        raise ValueError(f"vocoder {name!r} is not one of {sorted(VOCODERS)}")
    try:
        return VOCODERS[name](fs=fs, hop_length=hop_length, n_mels=n_mels, **conf)
    except TypeError as error:
        raise ValueError(f"vocoder_conf {conf} doesn't fit vocoder {name!r}: {error}") from error
