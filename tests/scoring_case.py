"""Three utterances, natural and synthesised, with all that the command evaluate can be given; and a model for it."""

from __future__ import annotations

import json
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import torch

import flowavenet_plugin
from flowavenet_plugin.bin.evaluate import main
from flowavenet_plugin.data.scp import write_scp

FS, HOP, MELS = 22050, 256, 80
UTTS = ("utt1", "utt2", "utt3")
#: Predictors of opinion scores are slow, and have tests of their own.
SLOW = ("--leave_out", "distillmos", "dnsmos", "dnsmos_p808")


class StubVocoder:
    """A model whose likelihood is known: minus the mean square, plus the first feature."""

    fs, hop_length, n_mels = FS, HOP, MELS

    def log_likelihood(self, wav: torch.Tensor, feats: torch.Tensor) -> torch.Tensor:
        assert wav.dtype == feats.dtype == torch.float32
        return feats[0, 0] - wav.square().mean()


class Case:
    """Three utterances: the synthesised speech is the natural at half the scale, padded to whole frames."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.output = folder, folder / "scoring"
        rng = np.random.default_rng(0)
        self.wavs = {utt: (0.1 * rng.normal(size=6000 + 100 * n)).astype(np.float32) for n, utt in enumerate(UTTS)}
        self.files = {side: {utt: folder / side / f"{utt}.wav" for utt in UTTS} for side in ("eval1", "gen")}
        feats = {}
        for number, (utt, wav) in enumerate(self.wavs.items()):
            frames = len(wav) // HOP + 1
            feats[utt] = np.full((frames, MELS), 4.0 + number, dtype=np.float32)
            padded = np.pad(0.5 * wav, (0, frames * HOP - len(wav)))
            self.write("eval1", utt, wav)
            self.write("gen", utt, padded)
        self.list("eval1", self.files["eval1"])
        self.list("gen", dict(reversed(self.files["gen"].items())))  # another order is no fault
        kaldiio.save_ark(str(folder / "feats.ark"), feats, scp=str(folder / "feats.scp"))
        write_scp(folder / "utt2rtf", {utt: 0.5 + 0.1 * number for number, utt in enumerate(UTTS)})
        (folder / "train.log").write_text("1epoch results: [train] loss=2.0, time=1 second, [valid] loss=1.5\n")
        (folder / "voc_x").mkdir()
        (folder / "voc_x/best.pth").write_bytes(b"weights")
        conf = dict(fs=FS, hop_length=HOP, n_mels=MELS)
        config = dict(vocoder="stub", vocoder_conf={}, feats_extract="fbank", feats_extract_conf=conf)
        (folder / "voc_x/config.yaml").write_text(json.dumps(config))
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(flowavenet_plugin, "load_vocoder", lambda path, device, refine: StubVocoder())

    def write(self, side: str, utt: str, wav: np.ndarray, fs: int = FS) -> None:
        self.files[side][utt].parent.mkdir(exist_ok=True)
        soundfile.write(self.files[side][utt], wav, fs, subtype="FLOAT")

    def list(self, side: str, files: dict[str, Path]) -> None:
        write_scp(self.folder / side / "wav.scp", files)

    def run(self, *options: str, model: bool = True) -> None:
        command = [f"--ref_scp={self.folder}/eval1/wav.scp", f"--gen_scp={self.folder}/gen/wav.scp"]
        command += [f"--output_dir={self.output}"]
        if model:
            command += [f"--model_file={self.folder}/voc_x/best.pth", f"--feats_scp={self.folder}/feats.scp"]
            command += [f"--utt2rtf={self.folder}/utt2rtf", f"--train_log={self.folder}/train.log"]
        main([*command, *SLOW, *options])
