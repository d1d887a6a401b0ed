"""VERSA's own scorer reads what evaluate writes, and evaluate reads what it writes; with stand-ins for its models.

Skipped without VERSA: its models are gigabytes to fetch, so that only its code runs here.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowavenet_plugin.data.scp import read_scp, write_scp
from scoring_case import FS, UTTS, Case

pytestmark = pytest.mark.skipif(
    find_spec("versa") is None, reason="VERSA isn't installed (it wants an environment of its own)"
)


class StandIns:
    """What VERSA would fetch: a judge who says 4.0, a listener who mishears, a speaker model that hears two voices."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.rates: set[int] = set()
        pseudo_mos, speaker, recogniser = (
            importlib.import_module(f"versa.{name}")
            for name in ("utterance_metrics.pseudo_mos", "utterance_metrics.speaker", "corpus_metrics.whisper_wer")
        )
        judge = torch.nn.Module()
        judge.forward = self.judge
        patch.setattr(pseudo_mos.torch.hub, "load", lambda repository, model, **options: judge)
        patch.setattr(pseudo_mos.torch.hub, "set_dir", lambda folder: None)
        patch.setattr(speaker, "speaker_model_setup", lambda **options: self.embed)
        patch.setattr(recogniser, "whisper", SimpleNamespace(load_model=lambda *tag, **options: self))
        patch.setattr(recogniser, "TextCleaner", lambda kind: lambda text: re.sub("[^a-z ]", "", text.lower()))

    def judge(self, wav: torch.Tensor, rate: int) -> torch.Tensor:
        self.rates.add(rate)
        return torch.tensor([4.0])

    def embed(self, wav: np.ndarray) -> torch.Tensor:
        """As loud as the natural speech: one voice, half as loud: another; their cosine is 0.6."""
        return torch.tensor([[1.0, 0.0]]) if wav.std() > 0.075 else torch.tensor([[0.6, 0.8]])

    def transcribe(self, wav: torch.Tensor, beam_size: int) -> dict[str, str]:
        return {"text": "Some wards.", "language": "en"}


def test_versas_scorer_takes_the_files_and_its_results_are_merged(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scp(case.folder / "text", dict.fromkeys(UTTS, "Some words, here."))
    write_scp(case.folder / "copy.scp", case.files["eval1"])
    options = [f"--text={case.folder / 'text'}", f"--compare=copy={case.folder / 'copy.scp'}"]
    case.run(*options)
    stand_ins = StandIns(monkeypatch)
    scorer = importlib.import_module("versa.bin.scorer")
    for line in (case.output / "versa/run.sh").read_text().splitlines():
        if "versa.bin.scorer" in line:
            monkeypatch.setattr(sys, "argv", shlex.split(line)[2:])
            scorer.main()
    assert stand_ins.rates == {16000} != {FS}
    answers = [json.loads(line) for line in (case.output / "versa/result.jsonl").read_text().splitlines()]
    assert [answer["key"] for answer in answers] == list(UTTS)
    capsys.readouterr()
    case.run(*options)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    ours, copy = (dict(zip(rows[0], row, strict=True)) for row in rows[2:])
    assert (ours["UTMOS"], ours["speaker similarity"]) == ("4.000 ± 0.000", "0.600 ± 0.000")
    assert copy["speaker similarity"] == "1.000 ± 0.000"
    # "some wards" for "some words here": one word of three wrong, one missing; of 15 letters one wrong and 5 missing
    assert (ours["WER (%)"], ours["CER (%)"]) == ("66.667 ± 0.000", "40.000 ± 0.000")
    assert read_scp(case.output / "utt2utmos") == dict.fromkeys(UTTS, "4.000000")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.chdir(tmp_path)  # VERSA makes folders for what it fetches and compiles
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return Case(tmp_path, monkeypatch)
