"""A run that goes on is given the sets that it was started with, wherever they lie now; others are refused."""

from __future__ import annotations

import argparse
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import torch
import yaml

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.data.scp import ArkWriter, open_feats, read_scp, write_scp
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.options import Recorded
from flowavenet_plugin.tasks.trained_on import check_same_sets, describe_set

#: Fewer than LOOKED_AT would all be looked at.
UTTS = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sets and a run of one epoch."""
    root = tmp_path_factory.mktemp("made")
    tiny_corpus.make_corpus(root / "train", n_utts=UTTS, seconds=0.1)
    tiny_corpus.make_corpus(root / "valid", n_utts=3)
    train(root, root / "exp", max_epoch=1)
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """Return a copy, whose lists name files in it."""
    root = shutil.copytree(made, tmp_path / "copy", symlinks=True)
    for scp in root.glob("*/*.scp"):
        scp.write_text(scp.read_text().replace(str(made), str(root)))
    return root


@pytest.mark.parametrize("name, kind", [("feats.ark", "kaldi_ark"), ("utt.npy", "npy")])
def test_damaged_features_are_named(tmp_path: Path, name: str, kind: str) -> None:
    with ArkWriter(tmp_path / "feats.ark", tmp_path / "feats.scp") as writer:
        writer["utt"] = np.ones((3, 4), dtype=np.float32)
    np.save(tmp_path / "utt.npy", np.ones((3, 4)))
    for path in (tmp_path / "feats.ark", tmp_path / "utt.npy"):
        path.write_bytes(path.read_bytes()[:-5])
    scp = tmp_path / "one.scp"
    scp.write_text(f"utt {tmp_path}/{name}{':4' if kind == 'kaldi_ark' else ''}\n")
    with pytest.raises(ValueError, match=f"^utt: can't read .*{name}.* .listed in {scp}"):
        describe_set([(str(scp), "feats", kind)], [str(scp)])
    (tmp_path / "shapes").write_text("other 3\n")
    with pytest.raises(ValueError, match="one.scp has no utterance other, which .*shapes lists"):
        describe_set([(str(scp), "feats", kind)], [str(tmp_path / "shapes")])


def train(root: Path, exp: Path, **changes: object) -> None:
    """Train or go on."""
    options = {"num_workers": 0, "sample_interval": 0, "use_matplotlib": "false", "max_epoch": 2, **changes}
    main(tiny_corpus.train_options(root / "train", root / "valid", exp, **options))


def other_features(root: Path) -> None:
    feats = {utt: np.array(value) for utt, value in open_feats(root / "train/feats.scp").items()}
    with ArkWriter(root / "train/feats.ark", root / "train/feats.scp") as writer:
        for utt, value in feats.items():
            writer[utt] = value[::-1]  # of the same statistics


def other_audio(root: Path) -> None:
    for path in read_scp(root / "valid/wav.scp").values():
        wav, fs = soundfile.read(path, dtype="float32")
        soundfile.write(path, -wav, fs, subtype="FLOAT")


def fewer(root: Path) -> None:
    for name in ("wav.scp", "feats.scp", "utt2num_samples"):
        path = root / "train" / name
        write_scp(path, dict(list(read_scp(path).items())[: UTTS // 2]))


def other_order(root: Path) -> None:
    path = root / "train/utt2num_samples"
    write_scp(path, dict(reversed(read_scp(path).items())))


@pytest.mark.parametrize(
    "change, words",
    [
        (other_features, ["another training set: feats "]),
        (other_audio, ["another validation set: speech "]),
        (fewer, ["another training set: utterances 20 and 10", "lengths "]),
        (other_order, ["another training set: lengths "]),
    ],
)
def test_another_set_is_refused_before_anything_is_written(
    copy: Path, change: Callable[[Path], None], words: list[str]
) -> None:
    change(copy)
    before = {path: path.read_bytes() for path in (copy / "exp").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="this run can't go on with") as error:
        train(copy, copy / "exp")
    assert all(word in str(error.value) for word in words) and "--init_param" in str(error.value), error.value
    assert {path: path.read_bytes() for path in (copy / "exp").rglob("*") if path.is_file()} == before


def test_the_same_sets_in_another_place(copy: Path) -> None:
    train(copy, copy / "exp")
    assert (copy / "exp/2epoch.pth").exists()
    sets = yaml.safe_load((copy / "exp/config.yaml").read_text())["trained_on"]
    assert sets["train"]["utterances"] == UTTS and set(sets["valid"]) == {"utterances", "lengths", "speech", "feats"}


def test_a_run_of_an_older_version_names_no_sets(copy: Path) -> None:
    checkpoint = copy / "exp/checkpoint.pth"
    states = torch.load(checkpoint, weights_only=False)
    del states["options"]["trained_on"]
    torch.save(states, checkpoint)
    other_features(copy)
    train(copy, copy / "exp")  # nothing to compare with
    other_order(copy)
    with pytest.raises(ValueError, match="another training set: lengths "):  # from then on there is
        train(copy, copy / "exp", max_epoch=3)


def test_another_set_in_the_middle_of_an_epoch(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = ESPnetVocoderModel.forward, []

    def forward(self: ESPnetVocoderModel, *args: object, **kwargs: object) -> object:
        calls.append(None)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ESPnetVocoderModel, "forward", forward)
        with pytest.raises(SystemExit):
            train(copy, copy / "exp")
    fewer(copy)
    with pytest.raises(ValueError, match="another training set: utterances 20 and 10"):
        train(copy, copy / "exp")


def test_a_broken_middle_of_an_epoch_says_what_is_lost(copy: Path) -> None:
    (copy / "exp/stopped.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"stopped\.pth is broken: .* goes on after that epoch"):
        train(copy, copy / "exp")
    (copy / "exp/stopped.pth").unlink()
    train(copy, copy / "exp")  # as it said


def test_the_same_recordings_in_another_format(copy: Path) -> None:
    """Of 16 bits, as both hold them."""
    scp = copy / "train/wav.scp"
    for path in read_scp(scp).values():
        wav, fs = soundfile.read(path, dtype="float32")
        soundfile.write(path, wav, fs, subtype="PCM_16")
    train(copy, copy / "plain", max_epoch=1)
    for path in read_scp(scp).values():
        soundfile.write(path.replace(".wav", ".flac"), *soundfile.read(path, dtype="int16"))
        Path(path).unlink()
    scp.write_text(scp.read_text().replace(".wav\n", ".flac\n"))
    train(copy, copy / "plain")


def options_of(root: Path, exp: Path, **types: str) -> list[str]:
    """Return options that read the training set's ``speech`` or ``feats`` from another list and type."""
    options = tiny_corpus.train_options(root / "train", root / "valid", exp, num_workers=0, use_matplotlib="false")
    for name, spec in types.items():
        at = next(i for i, word in enumerate(options) if word.startswith(f"{root}/train/") and f",{name}," in word)
        options[at] = spec
    return options


@pytest.mark.parametrize("kind", ["npy", "audio in an ark"])
def test_other_types_of_data_are_compared_as_well(copy: Path, tmp_path: Path, kind: str) -> None:
    feats, wavs = open_feats(copy / "train/feats.scp"), read_scp(copy / "train/wav.scp")

    def write(sign: int) -> dict[str, str]:
        if kind == "npy":
            for utt, value in feats.items():
                np.save(tmp_path / f"{utt}.npy", sign * value)
            write_scp(tmp_path / "npy.scp", {utt: tmp_path / f"{utt}.npy" for utt in feats})
            return {"feats": f"{tmp_path}/npy.scp,feats,npy"}
        sounds = {utt: soundfile.read(path, dtype="float32") for utt, path in wavs.items()}
        vectors = {utt: sign * wav for utt, (wav, _) in sounds.items()}
        kaldiio.save_ark(f"{tmp_path}/wav.ark", vectors, scp=f"{tmp_path}/wavark.scp")
        return {"speech": f"{tmp_path}/wavark.scp,speech,kaldi_ark"}

    main(options_of(copy, copy / "other", **write(1)) + ["--max_epoch", "1"])
    main(options_of(copy, copy / "other", **write(1)))  # the same once more
    name = "feats" if kind == "npy" else "speech"
    with pytest.raises(ValueError, match=f"another training set: {name} "):
        main(options_of(copy, copy / "other", **write(-1)) + ["--max_epoch", "3"])


def test_a_type_that_is_not_looked_at_does_not_pass_for_the_same(copy: Path) -> None:
    recorded = Recorded({"trained_on": {"train": {"utterances": 2, "speech": "abc"}}}, Path("checkpoint.pth"))
    args = argparse.Namespace(trained_on={"train": {"utterances": 2}})
    with pytest.raises(ValueError, match="speech abc and unknown"):
        check_same_sets(recorded, args)


def test_a_dry_run_and_statistics_read_no_sets(copy: Path) -> None:
    train(copy, copy / "exp", dry_run="true")
    options = tiny_corpus.train_options(copy / "train", copy / "valid", copy / "stats", num_workers=0)
    for _ in range(2):
        at = next(i for i, word in enumerate(options) if word.endswith("_shape_file"))
        del options[at : at + 2]
    main([*options, "--collect_stats", "true"])
    assert (copy / "stats/train/speech_shape").exists()
