"""Two utterances, a model of them, and the commands of stages 3 to 5, for tests of what is kept and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import tiny_corpus
from flowavenet_plugin.bin import evaluate, pack, report, vocoder_inference
from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings
from flowavenet_plugin.data.scp import ArkWriter, open_feats
from tiny_voice import make_voice

UTTS = ("utt0", "utt1")


class Recipe:
    """A set with features, a model, and the commands of stages 3 to 5 on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.dump = folder, folder / "dump" / "dev"
        tiny_corpus.make_corpus(self.dump, n_utts=2, seconds=0.5)
        self.settings = full_settings("fbank", tiny_corpus.FEATS_CONF)
        conf = {"feats_extract": "fbank", "feats_extract_conf": self.settings}
        (self.dump / "feats_extract.yaml").write_text(yaml.safe_dump(conf))
        self.model = make_voice(folder / "exp")
        self.out = folder / "exp" / "decode" / "dev"

    def change_recording(self, utt: str, gain: float = 0.5, cut: int = 0) -> None:
        """Correct a recording in place and extract the features of all again, into the same files."""
        path = self.dump / f"{utt}.wav"
        wav, fs = soundfile.read(path, dtype="float32")
        soundfile.write(path, gain * wav[: len(wav) - cut], fs, subtype="FLOAT")
        extractor = build_feats_extract("fbank", self.settings)
        with ArkWriter(self.dump / "feats.ark", self.dump / "feats.scp") as writer:
            for each in UTTS:
                wav, fs = soundfile.read(self.dump / f"{each}.wav", dtype="float32")
                writer[each] = extract(extractor, wav, fs, each)[1]

    def change_feats(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Extract the features of utt1 otherwise, into the same file; the recordings stay as they are."""
        feats = dict(open_feats(self.dump / "feats.scp"))
        with ArkWriter(self.dump / "feats.ark", self.dump / "feats.scp") as writer:
            for utt, values in feats.items():
                writer[utt] = change(values) if utt == "utt1" else values

    def train(self) -> None:
        """Change the weights."""
        states = torch.load(self.model)
        next(iter(states.values())).add_(0.01)
        torch.save(states, self.model)

    def decode(self, *options: str, out: Path | None = None) -> None:
        command = ["--model_file", str(self.model), "--output_dir", str(out or self.out)]
        if "--tts_dir" not in options:
            command += ["--scp", str(self.dump / "feats.scp")]
        vocoder_inference.main([*command, *options])

    def score(self, *options: str) -> None:
        command = [f"--ref_scp={self.dump}/wav.scp", f"--gen_scp={self.out}/wav/wav.scp"]
        command += [f"--output_dir={self.out}/scoring", f"--model_file={self.model}"]
        evaluate.main([*command, f"--feats_scp={self.dump}/feats.scp", *options])

    def report(self) -> str:
        report.main([f"--experiment={self.folder / 'exp'}", "--inference_tag=decode"])
        return (self.folder / "exp/report.html").read_text()

    def pack(self) -> None:
        command = ["--model_file", str(self.model), "--outpath", str(self.folder / "voice.zip")]
        pack.main([*command, "--results_dir", str(self.out.parent)])

    def sounds(self, out: Path | None = None) -> dict[str, bytes]:
        return {utt: ((out or self.out) / f"wav/{utt}.wav").read_bytes() for utt in UTTS}

    def refused(self, what: str, *options: str) -> str:
        """The message with which a command fails, nothing being changed."""
        before = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        with pytest.raises(SystemExit) as stop:
            getattr(self, what)(*options)
        assert {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()} == before
        return str(stop.value.code)
