"""A corpus of a few short tones with features on disk, and the training options that fit it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.data.scp import ArkWriter, write_scp

FS, HOP, N_MELS = 8000, 32, 6
FEATS_CONF = dict(fs=FS, n_fft=128, hop_length=HOP, n_mels=N_MELS, fmin=0, fmax=4000)
VOCODER_CONF = dict(n_block=2, n_flow=2, n_layer=1, filter_size=4, upsample_scales=[4, 8])


def make_corpus(folder: Path, n_utts: int = 6, seconds: float = 0.3) -> Path:
    """Write wav.scp, feats.scp, utt2num_samples and feats_stats.npz, as stage 1 does."""
    folder.mkdir(parents=True, exist_ok=True)
    extractor = build_feats_extract("fbank", FEATS_CONF)
    rng = np.random.default_rng(0)
    wavs, samples, stacked = {}, {}, []
    with ArkWriter(folder / "feats.ark", folder / "feats.scp") as writer:
        for i in range(n_utts):
            uid = f"utt{i}"
            time = np.arange(int(FS * seconds) + 45 * i) / FS
            tone = 0.3 * np.sin(2 * np.pi * (200 + 70 * i) * time) + 0.02 * rng.standard_normal(len(time))
            wavs[uid], samples[uid] = folder / f"{uid}.wav", len(time)
            soundfile.write(wavs[uid], tone.astype(np.float32), FS, subtype="FLOAT")
            _, feats = extract(extractor, tone.astype(np.float32), FS, uid)
            writer[uid] = feats
            stacked.append(feats)
    write_scp(folder / "wav.scp", wavs)
    write_scp(folder / "utt2num_samples", samples)
    every = np.concatenate(stacked).astype(np.float64)
    np.savez(folder / "feats_stats.npz", count=len(every), sum=every.sum(0), sum_square=np.square(every).sum(0))
    return folder


def train_options(train: Path, valid: Path, output_dir: Path, **options: object) -> list[str]:
    """Return vocoder_train's command line; ``options`` replace or add to small defaults."""
    merged: dict[str, object] = dict(
        output_dir=output_dir,
        feats_extract="fbank",
        feats_stats=train / "feats_stats.npz",
        segment_length=512,
        batch_size=2,
        optim="adam",
        optim_conf="lr=0.002",
        max_epoch=2,
        keep_nbest_models=1,
        best_model_criterion="valid,loss,min",
        num_workers=1,
        seed=3,
        log_interval=1,
        resume="true",
    )
    merged.update(options)
    command = []
    for key, value in merged.items():
        command += [f"--{key}", str(value)]
    for name, conf in (("vocoder_conf", VOCODER_CONF), ("feats_extract_conf", FEATS_CONF)):
        for key, value in conf.items():
            command += [f"--{name}", f"{key}={value}"]
    for name, folder in (("train", train), ("valid", valid)):
        command += [f"--{name}_data_path_and_name_and_type", f"{folder}/wav.scp,speech,sound"]
        command += [f"--{name}_data_path_and_name_and_type", f"{folder}/feats.scp,feats,kaldi_ark"]
        command += [f"--{name}_shape_file", f"{folder}/utt2num_samples"]
    return command
