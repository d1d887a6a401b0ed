"""Other systems in the tables: compared audio, Griffin-Lim, other experiments, and what VERSA adds."""

from __future__ import annotations

import json
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import yaml

from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings
from flowavenet_plugin.data.scp import read_scp, write_scp
from scoring_case import FS, HOP, UTTS, Case, StubVocoder


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, monkeypatch)


def read_rows(printed: str) -> dict[str, dict[str, str]]:
    """The printed table: first cell -> heading -> cell."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines()]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_other_systems_join_the_table(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """A wav.scp of more utterances than wanted, a folder with ParallelWaveGAN's names, and a folder of sets."""
    write_scp(case.folder / "copy.scp", case.files["eval1"] | {"another": case.folder / "another.wav"})
    for utt, wav in case.wavs.items():
        for folder, name in (("pwg", f"{utt}_gen.wav"), ("sets/eval1", f"{utt}.flac")):
            (case.folder / folder).mkdir(parents=True, exist_ok=True)
            soundfile.write(case.folder / folder / name, 0.1 * wav, FS)
    places = {"copy": "copy.scp", "pwg": "pwg", "sets": "sets"}
    case.run(*(f"--compare={name}={case.folder / place}" for name, place in places.items()))
    rows = read_rows(capsys.readouterr().out)
    assert list(rows) == ["eval1", "eval1 copy", "eval1 pwg", "eval1 sets"]
    assert rows["eval1 copy"]["log-mel distance (dB)"] == "0.000 ± 0.000"
    assert rows["eval1 pwg"]["log-mel distance (dB)"].startswith(("19.9", "20.0"))
    assert rows["eval1 sets"]["log-mel distance (dB)"].startswith(("19.9", "20.0"))
    assert rows["eval1 copy"]["log-likelihood (nats/sample)"] == rows["eval1 copy"]["real-time factor"] == "-"
    assert read_scp(case.output / "compare/copy/utt2lsd") == dict.fromkeys(UTTS, "0.000000")
    scores = json.loads((case.output / "scores.json").read_text())
    assert [system["name"] for system in scores["systems"]] == ["", "copy", "pwg", "sets"]


def score_another_experiment(case: Case) -> Path:
    """A decoding of another model, scored by this command: likelihoods of 4, 5 and 6 nats, a real-time factor of 2."""
    out = case.folder / "exp/voc_y/decode/eval1"
    write_scp(out / "wav/wav.scp", case.files["eval1"])
    write_scp(out / "utt2rtf", dict.fromkeys(UTTS, "2.0"))
    case.run(f"--gen_scp={out}/wav/wav.scp", f"--utt2rtf={out}/utt2rtf", f"--output_dir={out}/scoring")
    return out.parent


def test_another_experiment_brings_its_likelihood_and_speed(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    other = score_another_experiment(case)
    theirs = next(iter(read_rows(capsys.readouterr().out).values()))
    case.monkeypatch.setattr(StubVocoder, "log_likelihood", lambda self, wav, feats: 1.0 + 0.0 * wav.mean())
    case.run(f"--compare=causal={other}", "--compare=copy=" + str(other / "eval1/wav/wav.scp"))
    rows = read_rows(capsys.readouterr().out)
    assert rows["eval1"]["log-likelihood (nats/sample)"] == "1.000 ± 0.000"
    for heading in ("log-likelihood (nats/sample)", "log-likelihood (bits/sample)", "real-time factor"):
        assert rows["eval1 causal"][heading] == theirs[heading] != rows["eval1"][heading]
        assert rows["eval1 copy"][heading] == "-"  # a bare list has no model
    assert rows["eval1 causal"]["real-time factor"] == "2.000 ± 0.000"
    assert read_scp(case.output / "compare/causal/utt2log_likelihood")["utt1"].startswith("3.99")


def test_likelihoods_of_other_recordings_are_not_compared(
    case: Case, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    other = score_another_experiment(case)
    path = other / "eval1/scoring/scores.json"
    scores = json.loads(path.read_text())
    scores["natural"]["utt2"] = "/another/recording.wav"
    path.write_text(json.dumps(scores))
    capsys.readouterr()
    case.run(f"--compare=causal={other}")
    row = read_rows(capsys.readouterr().out)["eval1 causal"]
    assert (row["log-likelihood (nats/sample)"], row["real-time factor"]) == ("-", "2.000 ± 0.000")
    assert "no log-likelihood of causal" in caplog.text
    assert "for instance for utt2: /another/recording.wav, not" in caplog.text


def test_a_damaged_score_of_another_experiment_is_named(case: Case) -> None:
    other = score_another_experiment(case)
    (other / "eval1/scoring/scores.json").write_text('{"systems": []}')
    with pytest.raises(SystemExit, match="--compare causal: .*scores.json is not of evaluate"):
        case.run(f"--compare=causal={other}")
    assert not case.output.exists()


@pytest.mark.parametrize(
    ("fs", "samples", "message"),
    [
        (16000, 6100, "utt2 of x: the natural speech has 22050 Hz, .*utt2.wav has 16000 Hz"),
        (FS, 3000, "utt2 of x: the reference has 6100 samples, the generated audio 3000; .*at most 256"),
        (FS, 0, "utt2 of x: the generated audio has shape"),
        (None, 0, "utt2: no such audio file: .*x/utt2.wav"),
    ],
)
def test_bad_audio_of_another_system_is_named(case: Case, fs: int | None, samples: int, message: str) -> None:
    folder = case.folder / "x"
    folder.mkdir()
    for utt in UTTS:
        soundfile.write(folder / f"{utt}.wav", case.wavs[utt], FS)
    write_scp(folder / "wav.scp", {utt: folder / f"{utt}.wav" for utt in UTTS})
    if fs is None:
        (folder / "utt2.wav").unlink()
    else:
        soundfile.write(folder / "utt2.wav", case.wavs["utt2"][:samples], fs)
    with pytest.raises(SystemExit, match=f"^evaluate: error: .*{message}"):
        case.run(f"--compare=x={folder}")
    assert not case.output.exists()


def test_griffin_lim_is_synthesised_from_the_features(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """Of ESPnet2's features of the recordings themselves: nearer to them than noise of the same kind is."""
    settings = full_settings("fbank", dict(fs=FS))
    extractor = build_feats_extract("fbank", settings)
    feats = {utt: extract(extractor, wav, FS, utt)[1] for utt, wav in case.wavs.items()}
    kaldiio.save_ark(str(case.folder / "feats.ark"), feats, scp=str(case.folder / "feats.scp"))
    conf = {"feats_extract": "fbank", "feats_extract_conf": settings}
    (case.folder / "feats_extract.yaml").write_text(yaml.safe_dump(conf))
    for utt, wav in case.wavs.items():
        case.write("gen", utt, np.random.default_rng(5).normal(scale=0.1, size=len(wav)).astype(np.float32))
    case.run("--griffin_lim", "--mel_inversion")
    rows = read_rows(capsys.readouterr().out)
    assert list(rows) == ["eval1", "eval1 mel_inversion", "eval1 griffin_lim"]
    noise, inversion, griffin_lim = (float(row["log-mel distance (dB)"].split()[0]) for row in rows.values())
    assert griffin_lim < 0.6 * noise and inversion < griffin_lim
    assert soundfile.info(case.output / "mel_inversion/wav/utt1.wav").frames == 24 * HOP
    wav = case.output / "griffin_lim/wav/utt1.wav"
    assert soundfile.info(wav).frames == 24 * HOP
    before = wav.stat().st_mtime_ns
    settings_file = case.folder / "feats_extract.yaml"
    settings_file.touch()  # stage 1 writes its files at each run
    case.run("--griffin_lim")
    assert wav.stat().st_mtime_ns == before
    settings_file.write_text(settings_file.read_text().replace("fmin: 80", "fmin: 90"))
    case.run("--griffin_lim")
    assert wav.stat().st_mtime_ns > before
    before = wav.stat().st_mtime_ns
    case.monkeypatch.setattr("flowavenet_plugin.evaluation.griffin_lim.ITERATIONS", 2)  # another version of this code
    case.run("--griffin_lim")
    assert wav.stat().st_mtime_ns > before


def test_versas_files_are_written_and_its_results_merged(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    write_scp(case.folder / "text", dict.fromkeys(UTTS, "some words"))
    case.run(f"--text={case.folder / 'text'}")
    folder = case.output / "versa"
    assert read_scp(folder / "gt.scp") == {utt: str(path) for utt, path in case.files["eval1"].items()}
    assert read_scp(folder / "pred.scp") == {utt: str(path) for utt, path in case.files["gen"].items()}
    assert read_scp(folder / "text")["utt1"] == "some words"
    names = [module["name"] for module in yaml.safe_load((folder / "score.yaml").read_text())]
    assert names == ["pseudo_mos", "speaker", "whisper_wer"]
    assert f"--pred {folder}/pred.scp --gt {folder}/gt.scp --text {folder}/text" in (folder / "run.sh").read_text()
    assert "UTMOS" not in capsys.readouterr().out
    answers = [{"key": utt, "utmos": 3.0 + number} for number, utt in enumerate(UTTS)] + [{"key": "other", "utmos": 0}]
    (folder / "result.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    case.run(f"--text={case.folder / 'text'}")
    assert "UTMOS" in capsys.readouterr().out
    assert read_scp(case.output / "utt2utmos") == {"utt1": "3.000000", "utt2": "4.000000", "utt3": "5.000000"}
