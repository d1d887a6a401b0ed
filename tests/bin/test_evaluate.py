"""The command: what it writes, and what it refuses without touching earlier results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import torch

import flowavenet_plugin
from flowavenet_plugin.data.scp import read_scp, write_scp
from flowavenet_plugin.vocoder import loading
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from scoring_case import FS, HOP, MELS, UTTS, Case, StubVocoder


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, monkeypatch)


def test_everything_is_measured_and_written(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.run()
    distances = {utt: float(value) for utt, value in read_scp(case.output / "utt2lsd").items()}
    assert list(distances) == list(UTTS)
    assert distances["utt1"] == pytest.approx(20 * np.log10(2), abs=1e-3)
    likelihoods = {utt: float(value) for utt, value in read_scp(case.output / "utt2log_likelihood").items()}
    for number, (utt, wav) in enumerate(case.wavs.items()):
        assert likelihoods[utt] == pytest.approx(4.0 + number - np.mean(wav.astype(float) ** 2), abs=1e-5)
    results = (case.output / "results.md").read_text()
    printed = capsys.readouterr().out.splitlines()
    head, row = ([cell.strip() for cell in printed[line].strip("|").split("|")] for line in (-3, -1))
    cells = dict(zip(head, row, strict=True))
    mean = np.mean(list(likelihoods.values()))
    assert row[:2] == ["eval1", "3"]
    assert row[2].startswith(f"{mean:.3f} ± 2.48")  # 4.303 (Student, 2 degrees of freedom) * 1 / sqrt(3)
    assert cells["log-likelihood (bits/sample)"].startswith(f"{mean / np.log(2):.3f} ± ")
    assert cells["log-spectral distance (dB)"].startswith("6.02")
    assert cells["log-mel distance (dB)"].startswith("6.0")
    assert cells["multi-resolution STFT"].startswith("1.19")  # 1/2 + ln 2
    assert cells["real-time factor"] == "0.600 ± 0.248"
    assert printed[-1] in results
    assert "## voc_x" in results
    assert "--ref_scp=" in results
    assert (case.output / "samples.png").read_bytes()[:4] == b"\x89PNG"


def test_a_saved_vocoder_is_loaded(case: Case) -> None:
    """A tiny FloWaveNet from its files, in place of the stub; its own likelihood is what must be written."""
    conf = {"n_block": 2, "n_flow": 1, "n_layer": 1, "filter_size": 4, "block_per_split": 1}
    torch.manual_seed(0)
    vocoder = FloWaveNetVocoder(fs=FS, hop_length=HOP, n_mels=MELS, **conf).eval()
    feats_conf = {"fs": FS, "hop_length": HOP, "n_mels": MELS}
    config = {"vocoder": "flowavenet", "vocoder_conf": conf, "feats_extract": "fbank", "feats_extract_conf": feats_conf}
    model_file = loading.save_vocoder(vocoder, config, case.folder / "exp")
    case.monkeypatch.setattr(flowavenet_plugin, "load_vocoder", loading.load_vocoder)
    case.run(f"--model_file={model_file}")
    wav, feats = torch.from_numpy(case.wavs["utt1"]), torch.full((len(case.wavs["utt1"]) // HOP + 1, MELS), 4.0)
    with torch.no_grad():
        expected = float(loading.load_vocoder(model_file).log_likelihood(wav, feats))
    assert float(read_scp(case.output / "utt2log_likelihood")["utt1"]) == pytest.approx(expected, abs=1e-5)


def test_without_a_model_there_is_no_likelihood(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.run("--title", "by hand", "--num_plots", "1", model=False)
    assert "log-likelihood" not in capsys.readouterr().out
    assert "## by hand" in (case.output / "results.md").read_text()
    assert not (case.output / "utt2log_likelihood").exists()


def test_a_vocoder_without_likelihood_is_scored_all_the_same(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    class Silent(StubVocoder):
        log_likelihood = AbsVocoder.log_likelihood

    case.monkeypatch.setattr(flowavenet_plugin, "load_vocoder", lambda path, device, refine: Silent())
    case.run()
    assert "no log-likelihood: Silent has none" in caplog.text
    assert (case.output / "results.md").exists()


def test_missing_real_time_factors_are_told(
    case: Case, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_scp(case.folder / "utt2rtf", {"utt1": "0.5", "utt3": "0.5"})
    case.run()
    assert capsys.readouterr().out.splitlines()[-1].endswith("| 0.500 ± 0.000    |")
    assert "real-time factors of 2 of 3 utterances" in caplog.text


def test_the_worst_utterances_and_the_scale_are_told(case: Case) -> None:
    case.write("gen", "utt2", np.random.default_rng(9).normal(size=6100).astype(np.float32))
    case.run()
    results = (case.output / "results.md").read_text()
    assert re.search(r"^- log-spectral distance \(dB\): utt2 \(", results, flags=re.MULTILINE)
    assert re.search(r"^- log-likelihood \(nats/sample\): utt1 \(", results, flags=re.MULTILINE)  # least is worst
    every = np.concatenate(list(case.wavs.values())).astype(float)
    peak, rms = re.search(r"peak of (\S+) and a root mean square of (\S+);", results).groups()
    assert float(peak) == pytest.approx(np.abs(every).max(), abs=5e-4)
    assert float(rms) == pytest.approx(np.sqrt(np.mean(every**2)), abs=5e-5)


def test_the_settings_of_the_synthesis_are_kept(case: Case) -> None:
    (case.folder / "decode.yaml").write_text("temperature: 0.6\nseed: 3\n")
    case.run(f"--inference_config={case.folder / 'decode.yaml'}", "--inference_args=--temperature 0.7")
    assert json.loads((case.output / "scores.json").read_text())["settings"] == {"temperature": 0.7, "seed": 3}


def other_rate(case: Case) -> None:
    case.write("gen", "utt2", np.zeros(6000, dtype=np.float32), fs=16000)


def other_rate_of_an_utterance(case: Case) -> None:
    for side in ("eval1", "gen"):
        case.write(side, "utt2", case.wavs["utt2"], fs=16000)


def nan_audio(case: Case) -> None:
    wav = np.zeros(len(case.wavs["utt2"]), dtype=np.float32)
    wav[7] = np.nan
    case.write("gen", "utt2", wav)


def missing_utterance(case: Case) -> None:
    case.list("gen", {utt: case.files["gen"][utt] for utt in ("utt1", "utt3")})


def empty_list(case: Case) -> None:
    case.list("gen", {})


def missing_file(case: Case) -> None:
    case.files["gen"]["utt2"].unlink()


def too_short(case: Case) -> None:
    case.write("gen", "utt2", case.wavs["utt2"][:5000])


def other_dimension(case: Case) -> None:
    feats = {utt: np.zeros((len(wav) // HOP + 1, 40), dtype=np.float32) for utt, wav in case.wavs.items()}
    kaldiio.save_ark(str(case.folder / "feats.ark"), feats, scp=str(case.folder / "feats.scp"))


def missing_feats(case: Case) -> None:
    entries = read_scp(case.folder / "feats.scp")
    write_scp(case.folder / "feats.scp", {utt: entries[utt] for utt in ("utt1", "utt3")})


def broken_factor(case: Case) -> None:
    write_scp(case.folder / "utt2rtf", {"utt1": "0.5", "utt2": "fast", "utt3": "0.5"})


def unknown_factor(case: Case) -> None:
    write_scp(case.folder / "utt2rtf", {"utt1": "0.5", "utt4": "0.6"})


def other_model_rate(case: Case) -> None:
    case.monkeypatch.setattr(StubVocoder, "fs", 24000)


def diverged_model(case: Case) -> None:
    nan = torch.tensor(float("nan"))
    case.monkeypatch.setattr(StubVocoder, "log_likelihood", lambda self, wav, feats: nan)


def missing_log(case: Case) -> None:
    (case.folder / "train.log").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (other_rate, "utt2: .*22050 Hz, .*16000 Hz"),
        (other_rate_of_an_utterance, "utt2: 16000 Hz, .* 22050 Hz"),
        (nan_audio, "utt2: the generated audio has 1 samples of 6100 .*first at 7"),
        (missing_utterance, r"3 utterances, .* has 2; 1 only in .*: utt2"),
        (empty_list, "no utterances in .*gen"),
        (missing_file, "utt2: no such audio file"),
        (too_short, "utt2: the reference has 6100 samples, the generated audio 5000; .*at most 256"),
        (other_dimension, "utt1: features have 40 dimensions, 80"),
        (missing_feats, "1 only in the natural speech: utt2"),
        (broken_factor, "utt2: 'fast' in .*utt2rtf"),
        (unknown_factor, "utt4: '0.6' in .*utt2rtf, but .*wav.scp has no such utterance"),
        (other_model_rate, "utt1: 22050 Hz, but the model .* has 24000 Hz"),
        (diverged_model, "utt1: the log-likelihood is nan"),
        (missing_log, "no such training log"),
    ],
)
def test_bad_input_is_named_and_earlier_results_stay(case: Case, spoil: Callable[[Case], None], message: str) -> None:
    case.output.mkdir()
    names = ("results.md", "utt2lsd", "utt2log_likelihood", "samples.png")
    before = {name: f"an earlier {name}".encode() for name in names}
    for name, content in before.items():
        (case.output / name).write_bytes(content)
    spoil(case)
    with pytest.raises(SystemExit, match=f"^evaluate: error: .*{message}") as stopped:
        case.run()
    assert "\n" not in str(stopped.value)
    assert {path.name: path.read_bytes() for path in case.output.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model_file", "x.pth"], "--model_file and --feats_scp belong together"),
        (["--num_plots", "0"], "--num_plots is 0"),
        (["--griffin_lim"], "--griffin_lim needs --feats_scp"),
        (["--mel_inversion"], "--mel_inversion needs --feats_scp"),
        (["--compare", "x=/no/such"], "--compare x: no such file or folder: /no/such"),
        (["--compare", "natural=/dev"], "'natural' is the name of the recordings"),
        (["--compare", "nothing"], "--compare 'nothing': name=path is wanted"),
        (["--compare", "a=/b", "--compare", "a=/c"], "the name 'a' is there 2 times"),
        (["--compare", "empty=/dev"], "--compare empty: 3 of 3 utterances aren't in /dev: utt1"),
        (["--inference_config", "/no/such.yaml"], "--inference_config: no such file: /no/such.yaml"),
    ],
)
def test_options_that_make_no_sense_are_refused(case: Case, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        case.run(*options, model=False)
    assert not case.output.exists()


def test_help_loads_nothing_heavy_and_failure_is_exit_status_1(tmp_path: Path) -> None:
    """In a process of its own: heavy imports there would be seen."""
    command = [sys.executable, "-m", "flowavenet_plugin.bin.evaluate"]
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    code = "import sys; from flowavenet_plugin.bin import evaluate; evaluate.get_parser().format_help()\n"
    code += "sys.exit(len({'torch', 'numpy', 'librosa', 'matplotlib'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert helped.returncode == 0
    assert "--gen_scp" in helped.stdout
    lists = [f"--ref_scp={tmp_path}/a", f"--gen_scp={tmp_path}/b", f"--output_dir={tmp_path}/c"]
    failed = subprocess.run([*command, *lists], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr == f"evaluate: error: no such file list: {tmp_path}/a\n"
