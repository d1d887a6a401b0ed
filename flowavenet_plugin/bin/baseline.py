"""Griffin-Lim as another system in the tables of scores. Not a command itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowavenet_plugin.bin.scoring import System


def griffin_lim_system(
    feats_scp: Path, output_dir: Path, utts: Sequence[str]
) -> tuple[System, dict[str, dict[str, str]]]:
    """Synthesise with Griffin-Lim what isn't there yet, or was made of other features, into ``griffin_lim/wav/``.

    Args:
        feats_scp: Features; feats_extract.yaml lies beside.
        output_dir: Folder of the results.
        utts: Utterances wanted.

    Returns:
        The system, and what its sounds are of: utterance -> source.

    Raises:
        ValueError: If features or their settings can't be used.
        OSError: If a file is missing.
    """
    from flowavenet_plugin.bin.features_now import feats_place, settings_checksum
    from flowavenet_plugin.data.decoded import write_wav
    from flowavenet_plugin.data.provenance import (
        add_source,
        feats_checksum,
        file_checksum,
        kept,
        read_sources,
        write_sources,
    )
    from flowavenet_plugin.data.scp import open_feats, write_scp
    from flowavenet_plugin.data.settings import read_settings
    from flowavenet_plugin.evaluation.griffin_lim import ITERATIONS, GriffinLim

    settings = read_settings(feats_scp.parent / "feats_extract.yaml")
    vocoder = GriffinLim(settings["feats_extract"], settings["feats_extract_conf"])
    feats, folder = open_feats(feats_scp), output_dir / "griffin_lim"
    wavs = {utt: folder / "wav" / f"{utt}.wav" for utt in utts}
    options = {"settings": settings_checksum(feats_scp), "iterations": str(ITERATIONS), "seed": str(vocoder.seed)}
    before, now = read_sources(folder), {}
    for utt, path in wavs.items():
        mel = feats[utt]
        wanted = {"feats": feats_checksum(mel), **options}
        if not kept(path, before.get(utt), wanted):
            write_wav(path, vocoder(mel), vocoder.fs)
            before[utt] = {"sound": file_checksum(path), **wanted}
            add_source(folder, utt, before[utt])  # at once, as a run may be killed
        now[utt] = {**before[utt], **feats_place(feats_scp)}
    write_sources(folder, now)
    write_scp(folder / "wav" / "wav.scp", wavs)
    return System("griffin_lim", folder / "wav", {utt: str(path) for utt, path in wavs.items()}), now
