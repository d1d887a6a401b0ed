"""Decoding: what is written, seeds, resuming, parallel jobs, clear errors."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.vocoder_inference import main
from flowavenet_plugin.data.scp import open_feats, read_scp
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.loading import save_vocoder
from flowavenet_plugin.vocoder.seeds import noise_seed


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Return a folder with features and an untrained model in model/."""
    torch.manual_seed(0)
    conf = tiny_corpus.VOCODER_CONF
    vocoder = FloWaveNetVocoder(tiny_corpus.FS, tiny_corpus.HOP, tiny_corpus.N_MELS, **conf)
    for parameter in vocoder.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    vocoder.flow.blocks[0].steps[0].actnorm.scale.data.fill_(8.0)  # keep the sound within full scale
    config = dict(
        vocoder="flowavenet", vocoder_conf=conf, feats_extract="fbank", feats_extract_conf=tiny_corpus.FEATS_CONF
    )
    save_vocoder(vocoder, config, tmp_path / "model")
    return tiny_corpus.make_corpus(tmp_path / "data", n_utts=4)


def decode(corpus: Path, output_dir: Path, *options: str) -> None:
    """Decode the corpus."""
    model = corpus.parent / "model" / "model.pth"
    main(["--scp", f"{corpus}/feats.scp", "--model_file", str(model), "--output_dir", str(output_dir), *options])


def test_wavs_lists_and_real_time_factors(corpus: Path, tmp_path: Path) -> None:
    decode(corpus, tmp_path / "out")
    feats = open_feats(corpus / "feats.scp")
    wavs = read_scp(tmp_path / "out" / "wav" / "wav.scp")
    assert list(wavs) == list(feats)
    for uid, path in wavs.items():
        info = soundfile.info(path)
        assert (info.subtype, info.samplerate, info.channels) == ("PCM_16", tiny_corpus.FS, 1)
        assert info.frames == len(feats[uid]) * tiny_corpus.HOP
        assert Path(path) == tmp_path / "out" / "wav" / f"{uid}.wav"
    rtfs = read_scp(tmp_path / "out" / "utt2rtf")
    assert list(rtfs) == list(feats) and all(float(rtf) > 0 for rtf in rtfs.values())


def test_sound_is_that_of_the_vocoder(corpus: Path, tmp_path: Path) -> None:
    decode(corpus, tmp_path / "out", "--seed", "5", "--temperature", "0.5")
    vocoder = load_vocoder(corpus.parent / "model" / "model.pth")
    feats = torch.from_numpy(open_feats(corpus / "feats.scp")["utt2"])
    expected = vocoder.inference(feats, seed=noise_seed(5, feats), temperature=0.5)
    written, _ = soundfile.read(tmp_path / "out" / "wav" / "utt2.wav")
    np.testing.assert_allclose(written, expected.numpy(), atol=1.0 / 2**15)
    assert np.abs(written).max() > 0.01


def test_features_in_other_forms_sound_the_same(corpus: Path, tmp_path: Path) -> None:
    decode(corpus, tmp_path / "out")
    (tmp_path / "feats.ark.gz").write_bytes(gzip.compress((corpus / "feats.ark").read_bytes()))
    decode(corpus, tmp_path / "packed", "--scp", str(tmp_path / "feats.ark.gz"))
    assert largest_difference(tmp_path / "out", tmp_path / "packed") == 0
    h5py = pytest.importorskip("h5py", reason="HDF5 is read by h5py")
    lines = []
    for uid, feats in open_feats(corpus / "feats.scp").items():
        with h5py.File(tmp_path / f"{uid}.h5", "w") as file:
            file["wave"], file["feats"] = np.zeros(100, np.float32), feats
        lines.append(f"{uid} {uid}.h5\n")
    (tmp_path / "h5.scp").write_text("".join(lines))
    decode(corpus, tmp_path / "hdf5", "--scp", str(tmp_path / "h5.scp"), "--batch_size", "2")
    assert largest_difference(tmp_path / "out", tmp_path / "hdf5") <= 1


def largest_difference(first: Path, second: Path) -> int:
    """Return the largest difference of two decoded folders' samples, in steps of 16 bits."""
    names = sorted(path.name for path in (first / "wav").glob("*.wav"))
    assert names == sorted(path.name for path in (second / "wav").glob("*.wav"))
    sounds = [[soundfile.read(folder / "wav" / name, dtype="int16")[0] for name in names] for folder in (first, second)]
    return max(int(np.abs(a.astype(int) - b).max()) for a, b in zip(*sounds, strict=True))


def test_a_seed_gives_the_same_sound_in_any_order_batch_chunks_and_number_of_jobs(corpus: Path, tmp_path: Path) -> None:
    decode(corpus, tmp_path / "all")
    lines = (corpus / "feats.scp").read_text().splitlines()
    (corpus / "reversed.scp").write_text("\n".join(lines[::-1]) + "\n")
    decode(corpus, tmp_path / "reversed", "--scp", str(corpus / "reversed.scp"))
    for i, line in enumerate(lines):  # as many jobs as utterances
        (corpus / f"keys.{i}").write_text(line + "\n")
        decode(corpus, tmp_path / "jobs", "--key_file", str(corpus / f"keys.{i}"))
    for name in ("reversed", "jobs"):
        assert largest_difference(tmp_path / "all", tmp_path / name) == 0
    for i, options in enumerate(("--batch_size 2", "--batch_size 4", "--chunk_frames 1", "--chunk_frames 7")):
        decode(corpus, tmp_path / str(i), *options.split())
        assert largest_difference(tmp_path / "all", tmp_path / str(i)) <= 1, options
    decode(corpus, tmp_path / "other", "--seed", "1")
    assert largest_difference(tmp_path / "all", tmp_path / "other") > 100
    assert "--chunk_frames 3 --batch_size 2" in refused(corpus, tmp_path, "--chunk_frames", "3", "--batch_size", "2")
    assert "--chunk_frames -1" in refused(corpus, tmp_path, "--chunk_frames", "-1")


def test_what_is_done_is_skipped_and_lists_stay_whole(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(corpus, out)
    (out / "wav" / "utt1.wav").unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (out / "wav").glob("*.wav")}
    decode(corpus, out)
    assert len(read_scp(out / "wav" / "wav.scp")) == len(read_scp(out / "utt2rtf")) == 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_jobs_with_their_own_keys_share_a_folder(corpus: Path, tmp_path: Path) -> None:
    jobs = []
    for job in range(2):
        (tmp_path / f"keys.{job}").write_text(f"utt{job} x\nutt{job + 2} x\n")
        command = [sys.executable, "-m", "flowavenet_plugin.bin.vocoder_inference", "--scp", f"{corpus}/feats.scp"]
        command += ["--model_file", str(tmp_path / "model" / "model.pth"), "--output_dir", str(tmp_path / "jobs")]
        jobs.append(subprocess.Popen([*command, "--key_file", str(tmp_path / f"keys.{job}")]))
    assert [job.wait() for job in jobs] == [0, 0]
    assert list(read_scp(tmp_path / "jobs" / "wav" / "wav.scp")) == ["utt0", "utt1", "utt2", "utt3"]
    assert len(read_scp(tmp_path / "jobs" / "utt2rtf")) == 4
    decode(corpus, tmp_path / "alone")
    for i in range(4):
        assert (tmp_path / f"jobs/wav/utt{i}.wav").read_bytes() == (tmp_path / f"alone/wav/utt{i}.wav").read_bytes()


def test_a_batch_changes_neither_sound_nor_order(corpus: Path, tmp_path: Path) -> None:
    decode(corpus, tmp_path / "single")
    decode(corpus, tmp_path / "batch", "--batch_size", "3")
    assert list(read_scp(tmp_path / "batch/wav/wav.scp")) == list(read_scp(tmp_path / "batch/utt2rtf"))
    for uid in open_feats(corpus / "feats.scp"):
        single, batch = (soundfile.read(tmp_path / f"{name}/wav/{uid}.wav")[0] for name in ("single", "batch"))
        np.testing.assert_allclose(batch, single, atol=1.5 / 2**15)
    assert "at least 1, not 0" in refused(corpus, tmp_path, "--batch_size", "0")


def test_precision_and_denoiser_are_options(corpus: Path, tmp_path: Path) -> None:
    decode(corpus, tmp_path / "plain")
    decode(corpus, tmp_path / "float32", "--dtype", "float32")
    decode(corpus, tmp_path / "bfloat16", "--dtype", "bfloat16")
    decode(corpus, tmp_path / "denoised", "--denoiser_strength", "0.5")
    sounds = {
        name: soundfile.read(tmp_path / f"{name}/wav/utt0.wav")[0]
        for name in ("plain", "float32", "bfloat16", "denoised")
    }
    assert np.array_equal(sounds["plain"], sounds["float32"])
    for name in ("bfloat16", "denoised"):
        assert 0 < np.abs(sounds[name] - sounds["plain"]).max() < 0.1
    assert "-1" in refused(corpus, tmp_path, "--denoiser_strength", "-1")
    assert "for GPUs" in refused(corpus, tmp_path, "--dtype", "tf32")
    assert "for GPUs" in refused(corpus, tmp_path, "--cuda_graphs", "true")


def test_refinement_is_an_option_that_the_sound_depends_on(corpus: Path, tmp_path: Path) -> None:
    out, feats = tmp_path / "out", open_feats(corpus / "feats.scp")
    decode(corpus, out)
    plain = (out / "wav" / "utt0.wav").read_bytes()
    decode(corpus, out, "--refine", "3", "--batch_size", "2")
    mel = torch.from_numpy(feats["utt0"])
    expected = load_vocoder(corpus.parent / "model" / "model.pth", refine=3).inference(mel, seed=noise_seed(0, mel))
    found, _ = soundfile.read(out / "wav" / "utt0.wav", dtype="float32")
    np.testing.assert_allclose(found, expected.clamp(-1, 1).numpy(), atol=1.01 / 2**15)
    before = (out / "wav" / "utt0.wav").stat().st_mtime_ns
    decode(corpus, out, "--refine", "3")
    assert (out / "wav" / "utt0.wav").stat().st_mtime_ns == before
    decode(corpus, out, "--refine", "3", "--chunk_frames", "4")  # pieces are refined apart
    assert (out / "wav" / "utt0.wav").stat().st_mtime_ns > before
    decode(corpus, out, "--refine", "0")
    assert (out / "wav" / "utt0.wav").read_bytes() == plain
    # What an earlier version has decoded, which knew nothing of all this, is kept.
    made_of = out / "made_of"
    made_of.write_text(made_of.read_text().replace(" refine=0", "").replace(" chunk_frames=0", ""))
    assert " refine=" not in made_of.read_text()
    before = (out / "wav" / "utt0.wav").stat().st_mtime_ns
    decode(corpus, out)
    assert (out / "wav" / "utt0.wav").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="--refine 0"):
        decode(corpus, tmp_path / "no", "--refine", "3", "--denoiser_strength", "0.1")
    with pytest.raises(SystemExit, match="vocoder_inference: error: .*whole number from 0, not -2"):
        decode(corpus, tmp_path / "no", "--refine", "-2")


def test_config_file_and_command_line(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "decode.yaml").write_text("temperature: 0.5\nseed: 5\n")
    decode(corpus, tmp_path / "file", "--config", str(tmp_path / "decode.yaml"))
    decode(corpus, tmp_path / "line", "--temperature", "0.5", "--seed", "5")
    decode(corpus, tmp_path / "both", "--config", str(tmp_path / "decode.yaml"), "--seed", "0")
    file, line, both = ((tmp_path / name / "wav" / "utt0.wav").read_bytes() for name in ("file", "line", "both"))
    assert file == line != both


def refused(corpus: Path, tmp_path: Path, *options: str) -> str:
    """Return the message of a decoding that must fail without a trace on what is there."""
    with pytest.raises(SystemExit) as stop:
        decode(corpus, tmp_path / "out", *options)
    assert stop.value.code not in (0, None)
    return str(stop.value.code)


def test_bad_input_names_the_utterance_and_loses_nothing(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (corpus / "feats.scp").read_text().splitlines()
    np.save(corpus / "narrow.npy", np.zeros((4, 3), np.float32))
    (corpus / "feats.scp").write_text("\n".join([*lines[:2], f"utt2 {corpus}/narrow.npy", lines[3]]) + "\n")
    message = refused(corpus, tmp_path)
    assert "utt2" in message and "(4, 3)" in message and "6" in message
    assert list(read_scp(tmp_path / "out" / "wav" / "wav.scp")) == ["utt0", "utt1", "utt3"]
    assert len(read_scp(tmp_path / "out" / "utt2rtf")) == 3

    (corpus / "feats.scp").write_text("\n".join([f"utt0 touch {tmp_path}/ran |", *lines[1:]]) + "\n")
    message = refused(corpus, tmp_path)
    assert "utt0" in message and "pipe" in message and not (tmp_path / "ran").exists()

    (corpus / "feats.scp").write_text("\n".join(lines) + "\n")
    (tmp_path / "keys").write_text("utt1 x\nutt8 x\n")
    message = refused(corpus, tmp_path, "--key_file", str(tmp_path / "keys"))
    assert "utt8" in message and "1 of 2" in message
    assert "gone.pth" in refused(corpus, tmp_path, "--model_file", str(tmp_path / "gone.pth"))
    (tmp_path / "decode.yaml").write_text("temprature: 0.5\n")
    refused(corpus, tmp_path, "--config", str(tmp_path / "decode.yaml"))
    assert "temprature" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert "no GPU" in refused(corpus, tmp_path, "--ngpu", "1")
    assert list(read_scp(tmp_path / "out" / "wav" / "wav.scp")) == ["utt0", "utt1", "utt3"]


def test_an_id_cannot_leave_the_folder(corpus: Path, tmp_path: Path) -> None:
    line = (corpus / "feats.scp").read_text().splitlines()[0]
    (corpus / "feats.scp").write_text(line.replace("utt0", "../utt0", 1) + "\n")
    assert "../utt0" in refused(corpus, tmp_path)
    assert not list(tmp_path.glob("out/*.wav"))


def test_a_tts_run_is_decoded_and_its_settings_compared(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "exp" / "tts_x" / "decode" / "eval1"
    (run / "denorm").mkdir(parents=True)
    feats = open_feats(corpus / "feats.scp")
    for uid, values in feats.items():
        np.save(run / "denorm" / f"{uid}.npy", values)
    lines = [f"{uid} exp/tts_x/decode/eval1/denorm/{uid}.npy" for uid in feats]
    (run / "denorm" / "feats.scp").write_text("\n".join(lines) + "\n")
    model = str(tmp_path / "model" / "model.pth")
    command = ["--tts_dir", str(run), "--model_file", model, "--output_dir", str(tmp_path / "out")]
    config = run.parents[1] / "config.yaml"
    conf = {**tiny_corpus.FEATS_CONF, "hop_length": 40}
    config.write_text(yaml.safe_dump(dict(feats_extract="fbank", feats_extract_conf=conf)))
    with pytest.raises(SystemExit) as stop:
        main(command)
    row = [line.split() for line in str(stop.value.code).splitlines() if line.startswith("hop_length")]
    assert row and row[0][1:3] == ["40", "32"]
    config.write_text(yaml.safe_dump(dict(feats_extract="fbank", feats_extract_conf=tiny_corpus.FEATS_CONF)))
    main(command)
    decode(corpus, tmp_path / "direct")
    for uid in feats:
        assert (tmp_path / f"out/wav/{uid}.wav").read_bytes() == (tmp_path / f"direct/wav/{uid}.wav").read_bytes()
    with pytest.raises(SystemExit) as stop:
        main([*command, "--scp", f"{corpus}/feats.scp"])
    assert stop.value.code == 2


def test_normalised_features_are_refused(corpus: Path, tmp_path: Path) -> None:
    vocoder = load_vocoder(tmp_path / "model" / "model.pth")
    vocoder.set_feats_stats(torch.full((6,), -3.0), torch.full((6,), 0.7))
    config = yaml.safe_load((tmp_path / "model" / "config.yaml").read_text())
    save_vocoder(vocoder, config, tmp_path / "model")
    np.save(corpus / "norm.npy", np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32))
    (corpus / "feats.scp").write_text(f"utt7 {corpus}/norm.npy\n")
    message = refused(corpus, tmp_path)
    assert "utt7" in message and "normalised" in message and "denorm" in message


@pytest.mark.parametrize("size", ["1", "3"])
def test_one_bad_utterance_costs_no_other(corpus: Path, tmp_path: Path, size: str) -> None:
    good = (corpus / "feats.scp").read_text()
    np.save(corpus / "narrow.npy", np.zeros((4, 3), np.float32))
    np.save(corpus / "far.npy", np.full((4, 6), -100, np.float32))
    (corpus / "cut.ark").write_bytes((corpus / "feats.ark").read_bytes()[:60])
    lines = good.splitlines() + [
        f"bad{i} {corpus}/{name}" for i, name in enumerate(("narrow.npy", "cut.ark:5", "far.npy"))
    ]
    (corpus / "feats.scp").write_text("\n".join([lines[4], *lines[:2], lines[5], *lines[2:4], lines[6]]) + "\n")
    out = tmp_path / "out"
    message = refused(corpus, tmp_path, "--batch_size", size)
    assert "3 of 7 utterances can't be decoded" in message and "bad0: expected features of shape" in message
    assert "the others are decoded, see" in message
    assert sorted(read_scp(out / "wav/wav.scp")) == ["utt0", "utt1", "utt2", "utt3"]
    bad = read_scp(out / "bad_utts")
    assert sorted(bad) == ["bad0", "bad1", "bad2"]
    assert "(4, 3)" in bad["bad0"] and "cut.ark" in bad["bad1"] and "-100" in bad["bad2"]
    decode(corpus, out, "--batch_size", size, "--skip_bad_utts", "true")
    np.save(corpus / "far.npy", np.full((4, 6), -3, np.float32))
    np.save(corpus / "narrow.npy", np.full((4, 6), -3, np.float32))
    decode(corpus, out, "--batch_size", size, "--skip_bad_utts", "true")
    assert list(read_scp(out / "bad_utts")) == ["bad1"] and "bad2" in read_scp(out / "wav/wav.scp")
    (corpus / "feats.scp").write_text(good)
    decode(corpus, out)
    for part in range(2):
        (corpus / "feats.scp").write_text(lines[5] + "\n")
        assert "none are decoded" in refused(corpus, tmp_path, "--skip_bad_utts", "true"), part


def test_a_folder_keeps_what_another_list_left(corpus: Path, tmp_path: Path) -> None:
    lines, out = (corpus / "feats.scp").read_text().splitlines(), tmp_path / "out"
    (corpus / "feats.scp").write_text("\n".join(lines[:2]))
    decode(corpus, out)
    (corpus / "feats.scp").write_text("\n".join(lines[2:]))
    decode(corpus, out)
    for name in ("wav/wav.scp", "utt2rtf", "made_of"):
        assert list(read_scp(out / name)) == ["utt0", "utt1", "utt2", "utt3"], name
    whole = {utt: (out / f"wav/{utt}.wav").read_bytes() for utt in ("utt0", "utt2", "utt3")}
    for utt, size in (("utt0", 1000), ("utt2", 1000), ("utt3", 0)):
        (out / f"wav/{utt}.wav").write_bytes(whole[utt][:size])
    decode(corpus, out)
    assert list(read_scp(out / "wav/wav.scp")) == ["utt1", "utt2", "utt3"]  # the first is of the other list
    (corpus / "feats.scp").write_text("\n".join(lines))
    decode(corpus, out)
    assert {utt: (out / f"wav/{utt}.wav").read_bytes() for utt in whole} == whole
