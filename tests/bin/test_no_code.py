"""No command runs code of a file that it is given: a pickle that would leave a mark goes through all their options."""

from __future__ import annotations

import importlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import marker_pickles
import tiny_corpus
import tiny_voice
from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.data.scp import open_feats, write_scp

CONF = [word for key, value in tiny_corpus.FEATS_CONF.items() for word in ("--feats_extract_conf", f"{key}={value}")]
#: Command -> a call of it that works, with {root} for the folder of :func:`place`.
CALLS = {
    "align_feats": "--tts_dir {root}/exp/tts/decode/dev --tts_stats {root}/dump/dev/feats_stats.npz "
    "--dump_dir {root}/dump/dev --output_dir {out}/gta",
    "evaluate": "--ref_scp {root}/dump/dev/wav.scp --gen_scp {root}/dump/dev/wav.scp --output_dir {out}/scoring "
    "--feats_scp {root}/dump/dev/feats.scp --model_file {root}/exp/voice/model.pth --num_plots 1",
    "export_onnx": "--model_file {root}/exp/voice/model.pth --output {out}/voice.pt2 --format torch_export",
    "extract_feats": "--wav_scp {root}/dump/dev/wav.scp --output_dir {out}/part " + " ".join(CONF),
    "import_original": "--checkpoint {root}/exp/voice/none.pth --output_dir {out}/imported",
    "make_mel_inversion": "--config {root}/exp/voice/config.yaml --outpath {out}/inversion.zip",
    "merge_dump": "--output_dir {out}/merged {root}/part",
    "pack": "--model_file {root}/exp/voice/model.pth --outpath {out}/voice.zip",
    "report": "--experiment {root}/exp/voice",
    "sweep": "--model_file {root}/exp/voice/model.pth --dump_dir {root}/dump --sets dev --temperatures 0.5 "
    "--experiment {out}/sweep",
    "vocoder_inference": "--scp {root}/dump/dev/feats.scp --model_file {root}/exp/voice/model.pth "
    "--output_dir {out}/wav",
}
#: What takes files although its type doesn't say so.
TEXTS = {"tts_stats", "compare"}
#: Commands whose call above is refused, since what would do isn't at hand here; the options are read all the same.
REFUSED = {"import_original", "report"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a voice, features, a decoding run of a TTS model, and a part of stage 1."""
    root = tmp_path_factory.mktemp("place")
    tiny_voice.make_voice(root / "exp/voice")
    dump = tiny_corpus.make_corpus(root / "dump/dev", n_utts=2)
    feats = open_feats(dump / "feats.scp")
    write_scp(dump / "utt2num_frames", {utt: len(values) for utt, values in feats.items()})
    settings = dict(feats_extract="fbank", feats_extract_conf=full_settings("fbank", tiny_corpus.FEATS_CONF))
    (dump / "feats_extract.yaml").write_text(yaml.safe_dump(settings))
    run = root / "exp/tts/decode/dev/norm"
    run.mkdir(parents=True)
    for utt, values in feats.items():
        np.save(run / f"{utt}.npy", values)
    write_scp(run / "feats.scp", {utt: run / f"{utt}.npy" for utt in feats})
    call("extract_feats", ["--wav_scp", str(dump / "wav.scp"), "--output_dir", str(root / "part"), *CONF])
    return root


def call(command: str, words: list[str]) -> str:
    """Run a command in this process; return what it was refused for, or nothing."""
    try:
        importlib.import_module(f"flowavenet_plugin.bin.{command}").main(words)
    except SystemExit as stop:
        return "" if stop.code in (None, 0) else f"exit {stop.code}"
    return ""


def options(command: str) -> list[str]:
    """Name the command's options that take files or folders; empty for words without an option."""
    parser = importlib.import_module(f"flowavenet_plugin.bin.{command}").get_parser()
    found = [action for action in parser._actions if action.type is Path or action.dest in TEXTS]
    return [action.option_strings[0] if action.option_strings else "" for action in found]


def test_all_commands_are_here() -> None:
    folder = Path(importlib.import_module("flowavenet_plugin.bin").__file__).parent
    commands = {path.stem for path in folder.glob("*.py") if "def get_parser" in path.read_text()}
    assert commands == {*CALLS, "vocoder_train"}  # whose options are in tests/tasks/test_starting_weights.py


def test_the_mark_works(place: Path, tmp_path: Path) -> None:
    files = marker_pickles.make_files(tmp_path / "evil", tmp_path / "mark", place / "exp/voice/model.pth")
    assert len(files) > 10
    pickle.loads((tmp_path / "evil/evil.pkl").read_bytes())
    assert (tmp_path / "mark").is_dir()
    (tmp_path / "mark").rmdir()
    yaml.unsafe_load((tmp_path / "evil/evil.yaml").read_text())
    assert (tmp_path / "mark").is_dir()


@pytest.mark.parametrize("command", CALLS)
def test_no_option_runs_a_pickle(place: Path, tmp_path: Path, command: str) -> None:
    words = CALLS[command].format(root=place, out=tmp_path / "out").split()
    refusal = call(command, words)
    assert bool(refusal) == (command in REFUSED), refusal
    refused = {}
    for option in options(command):
        for number in range(100):
            shutil.rmtree(tmp_path, ignore_errors=True)
            files = marker_pickles.make_files(tmp_path / "evil", tmp_path / "mark", place / "exp/voice/model.pth")
            if number == len(files):
                break
            value = f"evil={files[number]}" if option == "--compare" else str(files[number])
            refused[option, files[number].name] = call(command, [*words, *([option] if option else []), value])
            assert not (tmp_path / "mark").exists(), f"{command} {option} {files[number].name}"
    for option in {"--model_file", "--checkpoint"} & set(options(command)):
        for name in ("evil.pth", "evil.zip", "evil.pkl", "everything"):
            assert refused[option, name], f"{command} {option} {name} was taken"


@pytest.mark.parametrize("name", ["evil.pth", "evil.zip", "everything", "evil.pkl"])
def test_neither_does_a_vocoder_of_espnet2(place: Path, tmp_path: Path, name: str) -> None:
    from flowavenet_plugin.tasks.tts_adapter import build_vocoder
    from flowavenet_plugin.tasks.vocoder import VocoderTask

    model = place / "exp/voice/model.pth"
    marker_pickles.make_files(tmp_path / "evil", tmp_path / "mark", model)
    for load in (
        lambda path: build_vocoder(None, path, None, "cpu"),
        lambda path: VocoderTask.build_model_from_file(None, path),
        lambda path: VocoderTask.build_model_from_file(model.with_name("config.yaml"), path),
    ):
        with pytest.raises(ValueError, match="evil"):
            load(tmp_path / "evil" / name)
        assert not (tmp_path / "mark").exists()
