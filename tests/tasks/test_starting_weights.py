"""--init_param in all its forms, and no option of training that runs code of a file."""

from __future__ import annotations

import argparse
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import marker_pickles
import tiny_corpus
import tiny_voice
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.starting_weights import starting_weights, weights_only_in_espnet2
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with training and validation sets, a voice in voice/, and a finished run of one epoch in exp/."""
    root = tmp_path_factory.mktemp("corpus")
    tiny_corpus.make_corpus(root / "train")
    tiny_corpus.make_corpus(root / "valid", n_utts=2)
    tiny_voice.make_voice(root / "voice")
    main(tiny_corpus.train_options(root / "train", root / "valid", root / "exp", num_workers=0, max_epoch=1))
    return root


@pytest.fixture
def model() -> ESPnetVocoderModel:
    """Return an untrained model of the voice's sizes."""
    sizes = (tiny_corpus.FS, tiny_corpus.HOP, tiny_corpus.N_MELS)
    return ESPnetVocoderModel(FloWaveNetVocoder(*sizes, **tiny_corpus.VOCODER_CONF))


@pytest.fixture
def train(corpus: Path, tmp_path: Path) -> Callable[..., None]:
    """Return a function that trains in ``tmp_path / name``."""

    def run(name: str, **changes: object) -> None:
        changes = {"num_workers": 0, "max_epoch": 1, **changes}
        main(tiny_corpus.train_options(corpus / "train", corpus / "valid", tmp_path / name, **changes))

    return run


def voice(corpus: Path) -> dict[str, Tensor]:
    """Return the voice's weights by the vocoder's names."""
    states = torch.load(corpus / "voice/model.pth", weights_only=True)
    return {name.removeprefix("vocoder."): value for name, value in states.items()}


FORMS = {
    "plain": lambda states: states,
    "vocoder": lambda states: {f"vocoder.{name}": value for name, value in states.items()},
    "module": lambda states: {f"module.{name}": value for name, value in states.items()},
    "module_vocoder": lambda states: {f"module.vocoder.{name}": value for name, value in states.items()},
    "checkpoint": lambda states: {"model": {f"module.vocoder.{name}": value for name, value in states.items()}},
}


@pytest.mark.parametrize("part", ["", ":vocoder:vocoder", "::vocoder", ":vocoder", "::"])
@pytest.mark.parametrize("form", [*FORMS, "zip", "folder"])
def test_every_form_is_taken(corpus: Path, tmp_path: Path, model: ESPnetVocoderModel, form: str, part: str) -> None:
    """As load_vocoder takes it, too."""
    states, path = voice(corpus), tmp_path / "voice" / "model.pth"
    shutil.copytree(corpus / "voice", tmp_path / "voice")
    if form == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "voice"), "zip", tmp_path / "voice"))
    elif form == "folder":
        path = path.parent
    else:
        torch.save(FORMS[form](states), path)
    found = starting_weights(f"{path}{part}", model)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[f"vocoder.{name}"], value) for name, value in states.items())
    loaded = load_vocoder(path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in states.items())


@pytest.mark.parametrize(
    "part", [":vocoder.flow:vocoder.flow", ":flow:flow", ":flow", ":vocoder.flow", ":flow:vocoder.flow:"]
)
def test_a_part_is_taken(corpus: Path, model: ESPnetVocoderModel, part: str) -> None:
    found = starting_weights(f"{corpus}/voice/model.pth{part}", model)
    names = [name for name in model.state_dict() if name.startswith("vocoder.flow.")]
    assert [*found] == names and 0 < len(names) < len(model.state_dict())


def test_a_part_of_another_place_and_what_is_excluded(corpus: Path, model: ESPnetVocoderModel, tmp_path: Path) -> None:
    step = starting_weights(f"{corpus}/voice/model.pth:flow.blocks.0.steps.0:flow.blocks.0.steps.1", model)
    states = voice(corpus)
    assert all(name.startswith("vocoder.flow.blocks.0.steps.1.") for name in step)
    actnorm = step["vocoder.flow.blocks.0.steps.1.actnorm.scale"]
    assert torch.equal(actnorm, states["flow.blocks.0.steps.0.actnorm.scale"])
    shutil.copy(corpus / "voice/model.pth", tmp_path / "a:b.pth")
    for path in (corpus / "voice/model.pth", tmp_path / "c.pth"):
        few = {name: value for name, value in states.items() if not name.startswith(("flow.blocks.1", "feats"))}
        torch.save(few, tmp_path / "c.pth")
        found = starting_weights(f"{path}:::vocoder.flow.blocks.1,feats", model)
        assert {name.removeprefix("vocoder.") for name in found} == few.keys()
    assert starting_weights(f"{tmp_path}/a:b.pth", model).keys() == model.state_dict().keys()


def test_what_does_not_fit_is_refused_or_left_out(
    corpus: Path, model: ESPnetVocoderModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, states = tmp_path / "few.pth", voice(corpus)
    name = next(iter(states))
    states.pop(name)
    last = next(reversed(states))
    states[last] = torch.zeros(1, 2, 3)
    torch.save({**states, "more": torch.zeros(1)}, path)
    for text in (f"{path}", f"{path}:vocoder:vocoder", f"{path}::vocoder"):
        with pytest.raises(ValueError) as error:
            starting_weights(text, model)
        for words in (
            str(path),
            f"1 missing: vocoder.{name}",
            "1 not in the model: vocoder.more",
            f"vocoder.{last}: (1, 2, 3)",
        ):
            assert words in str(error.value), str(error.value)
        found = starting_weights(text, model, ignore_mismatch=True)
        assert found.keys() == model.state_dict().keys() - {f"vocoder.{name}", f"vocoder.{last}"}
    assert "vocoder.more of shape (1,) is left out: in the model it isn't there" in caplog.text
    torch.save({"more": torch.zeros(1)}, path)
    for text, ignore, words in (
        (f"{path}", True, "has nothing that fits the model, whose names are vocoder."),
        (f"{path}:encoder:flow", False, "missing: vocoder.flow."),
        (f"{path}:encoder", False, "the vocoder has no part encoder"),
        (f"{path}:a:b:c:d", False, "FILE:SOURCE:TARGET:EXCLUDED is as much as it may have"),
    ):
        with pytest.raises(ValueError) as error:
            starting_weights(text, model, ignore)
        assert words in str(error.value) and str(path) in str(error.value), str(error.value)


def test_training_from_a_zip_is_training_from_its_weights(
    train: Callable[..., None], corpus: Path, tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "voice"), "zip", corpus / "voice")
    for name, start in (("a", corpus / "voice/model.pth"), ("b", archive), ("c", f"{archive}:vocoder:vocoder")):
        train(name, init_param=start)
    train("d")
    first, *others = (torch.load(tmp_path / name / "1epoch.pth", weights_only=True) for name in "abcd")
    same = [all(torch.equal(value, other[name]) for name, value in first.items()) for other in others]
    assert same == [True, True, False]


DOORS = {
    "whole": dict(init_param="{evil}/evil.pth"),
    "part": dict(init_param="{evil}/evil.pth:vocoder:vocoder"),
    "mismatch": dict(init_param="{evil}/evil.pth", ignore_init_mismatch="true"),
    "part and mismatch": dict(init_param="{evil}/evil.pth:vocoder:vocoder", ignore_init_mismatch="true"),
    "pickle": dict(init_param="{evil}/evil.pkl", ignore_init_mismatch="true"),
    "zip": dict(init_param="{evil}/evil.zip", ignore_init_mismatch="true"),
    "folder": dict(init_param="{evil}/everything:vocoder:vocoder"),
    "statistics": dict(feats_stats="{evil}/evil.npz"),
    "statistics as a pickle": dict(feats_stats="{evil}/evil.pkl"),
    "list of arrays": dict(train_data_path_and_name_and_type="{evil}/npy.scp,feats,npy"),
    "list of arks": dict(train_data_path_and_name_and_type="{evil}/ark.scp,feats,kaldi_ark"),
    "list of arks as sound": dict(train_data_path_and_name_and_type="{evil}/ark.scp,speech,kaldi_ark"),
    "list of pickles as sound": dict(train_data_path_and_name_and_type="{evil}/pkl.scp,speech,sound"),
    "lengths": dict(train_shape_file="{evil}/evil.pkl"),
    "configuration": dict(config="{evil}/evil.yaml"),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_option_runs_a_pickle(corpus: Path, tmp_path: Path, door: str) -> None:
    """ESPnet2's own readers would: of weights, of parts of them, and of lists of arks."""
    marker_pickles.make_files(tmp_path / "evil", tmp_path / "mark", corpus / "voice/model.pth")
    options = tiny_corpus.train_options(
        corpus / "train", corpus / "valid", tmp_path / "exp", num_workers=0, max_epoch=1
    )
    for name, value in DOORS[door].items():
        value = value.format(evil=tmp_path / "evil")
        if name.endswith("_type"):  # in the place of the list of the same name and set
            kind = value.split(",")[1]
            place = next(i for i, word in enumerate(options) if f",{kind}," in word and options[i - 1] == f"--{name}")
            options[place] = value
        else:
            options += [f"--{name}", value]
    with pytest.raises((Exception, SystemExit)) as error:
        main(options)
    assert not (tmp_path / "mark").exists(), error.value
    assert not (tmp_path / "exp/1epoch.pth").exists()
    if "init_param" in DOORS[door]:
        assert "evil" in str(error.value) and not (tmp_path / "exp").exists(), error.value


def test_a_run_that_goes_on_runs_no_pickle(train: Callable[..., None], corpus: Path, tmp_path: Path) -> None:
    """Of a folder that came from elsewhere: its checkpoint, and the weights that averages are made of."""
    mark = marker_pickles.Mark(tmp_path / "mark")
    for name in ("checkpoint.pth", "1epoch.pth"):
        shutil.copytree(corpus / "exp", tmp_path / name, symlinks=True)
        states = torch.load(tmp_path / name / name, weights_only=False)
        torch.save({**states, "more": mark}, tmp_path / name / name)
        with pytest.raises(ValueError, match=f"{name} was not loaded: it holds more than weights"):
            train(name, max_epoch=2, keep_nbest_models=2)
        assert not (tmp_path / "mark").exists()


def test_reading_is_as_before_afterwards(tmp_path: Path) -> None:
    torch.save(argparse.Namespace(x=1), tmp_path / "trusted.pth")
    with weights_only_in_espnet2(), pytest.raises(ValueError, match="trusted.pth was not loaded"):
        torch.load(tmp_path / "trusted.pth", weights_only=False)
    assert torch.load(tmp_path / "trusted.pth", weights_only=False).x == 1
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "trusted.pth")


def test_a_checkpoint_of_a_run_loads(corpus: Path) -> None:
    """With ESPnet2's figures in it: times, and NumPy's numbers."""
    loaded = load_vocoder(corpus / "exp/checkpoint.pth").state_dict()
    weights = torch.load(corpus / "exp/1epoch.pth", weights_only=True)
    assert all(torch.equal(loaded[name.removeprefix("vocoder.")], value) for name, value in weights.items())
