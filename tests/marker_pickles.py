"""Files of every kind that a command may be given, which leave a mark when what is pickled in them is run."""

from __future__ import annotations

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import torch


class Mark:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.makedirs, (str(self.folder), 0o777, True)


def make_files(folder: Path, mark: Path, model: Path) -> list[Path]:
    """Write weights, archives, arrays, lists and settings that would make ``mark``.

    Args:
        folder: Folder to make.
        mark: The folder that a file makes if its code is run.
        model: Weights of a vocoder, with config.yaml beside: its weights are all there, and one thing more.

    Returns:
        The files; the last is a folder that holds them under the names that commands look for.
    """
    folder.mkdir(parents=True)
    evil = Mark(mark)
    torch.save({**torch.load(model, weights_only=True), "vocoder.more": evil}, folder / "evil.pth")
    (folder / "evil.pkl").write_bytes(pickle.dumps({"model": evil}))
    np.savez(folder / "evil.npz", **{key: np.array([evil], dtype=object) for key in ("count", "sum", "sum_square")})
    np.save(folder / "evil.npy", np.array([[evil]], dtype=object))
    (folder / "evil.ark").write_bytes(b"utt0 PKL" + pickle.dumps(evil))
    (folder / "evil.ark.gz").write_bytes(gzip.compress((folder / "evil.ark").read_bytes()))
    (folder / "evil.yaml").write_text(f"temperature: !!python/object/apply:os.makedirs ['{mark}', 511, true]\n")
    for name, entry in (("npy", "evil.npy"), ("ark", "evil.ark:5"), ("gz", "evil.ark.gz:5"), ("pkl", "evil.pkl")):
        (folder / f"{name}.scp").write_text("".join(f"utt{i} {folder}/{entry}\n" for i in range(6)))
    shutil.copy(model.with_name("config.yaml"), folder / "config.yaml")
    everything = folder / "everything"
    for name in ("norm", "denorm", "wav", "dev/wav"):
        (everything / name).mkdir(parents=True)
        for scp in ("feats.scp", "wav.scp"):
            shutil.copy(folder / "npy.scp", everything / name / scp)
            shutil.copy(folder / "npy.scp", everything / scp)
    for name in ("model.pth", "checkpoint.pth", "valid.loss.best.pth"):
        shutil.copy(folder / "evil.pth", everything / name)
    shutil.copy(folder / "evil.npz", everything / "feats_stats.npz")
    shutil.copy(folder / "evil.yaml", everything / "feats_extract.yaml")
    shutil.copy(folder / "config.yaml", everything / "config.yaml")
    shutil.make_archive(str(folder / "evil"), "zip", everything)
    return [*sorted(path for path in folder.iterdir() if path.is_file()), everything]
