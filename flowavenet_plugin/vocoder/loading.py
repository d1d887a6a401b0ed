"""Loading and saving trained vocoders: weights beside their config.yaml."""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.inversion.refinement import check_iterations
from flowavenet_plugin.vocoder.refined_vocoder import with_refinement
from flowavenet_plugin.vocoder.registry import VOCODERS, build_vocoder

#: Where the training model keeps its vocoder.
PREFIX = "vocoder."
_KINDS = {str: "a name", dict: "names and their values"}
#: Sizes that a vocoder is built of, and the largest that may be: far above all that is used, but not all memory.
_MOST = {"fs": 2**22, "hop_length": 2**16, "n_mels": 2**14}
#: What DistributedDataParallel and DataParallel put before all names of the model that they wrap.
PARALLEL = "module."


def load_vocoder(
    model_file: str | os.PathLike[str],
    config_file: str | os.PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    refine: int | None = None,
    check: bool = True,
) -> AbsVocoder:
    """Load a trained vocoder.

    Args:
        model_file: Weights, for instance ``exp/voc_x/valid.loss.best.pth``; or a packed model: a zip file, or the
            folder that it was unpacked to, with one ``config.yaml`` beside weights.
        config_file: Its configuration; default: ``config.yaml`` in the folder of the weights.
        device: Where to put it.
        refine: Iterations that bring each sound nearer to its features, see :class:`RefinedVocoder`; 0: none.
            Default: the configuration's own ``refine``, which packed models may have, else 0.
        check: Whether the vocoder refuses features that look normalised or can't be of any sound, and sound far beyond
            full scale; its ``checks`` switches that later.

    Returns:
        The vocoder in evaluation mode, with the feature settings as ``feats_extract`` (name) and
        ``feats_extract_conf`` (dict).

    Raises:
        FileNotFoundError: If one of the files is missing.
        ValueError: If the configuration is none of a vocoder, the weights don't fit it, or the file holds code.
    """
    with torch.inference_mode(False):  # weights made in it could neither be trained nor changed, anywhere
        vocoder = _load(model_file, config_file, device, refine)
    vocoder.checks = check
    return vocoder


def _load(
    model_file: str | os.PathLike[str],
    config_file: str | os.PathLike[str] | None,
    device: str | torch.device,
    refine: int | None,
) -> AbsVocoder:
    if refine is not None:
        check_iterations(refine)
    with unpacked(Path(model_file)) as weights:
        config_file = weights.parent / "config.yaml" if config_file is None else Path(config_file)
        return _fitted(weights, config_file, device, refine)


def _fitted(weights: Path, config_file: Path, device: str | torch.device, refine: int | None) -> AbsVocoder:
    """Build what the configuration describes, with the weights."""
    state_dict = read_state_dict(weights)
    config = read_config(config_file)
    # Weights are float32, whatever torch.set_default_dtype says at the moment.
    vocoder = _empty_vocoder(config, config_file).float()
    expected = vocoder.state_dict()
    state_dict = {key: value for key, value in state_dict.items() if not key.startswith(tuple(vocoder.training_only))}
    check_keys(expected, state_dict, weights, config_file)
    state_dict = {key: value.to(expected[key].dtype) for key, value in state_dict.items()}
    vocoder.load_state_dict(state_dict, assign=any(value.is_meta for value in expected.values()))
    with _about(config_file):
        vocoder.set_features(config["feats_extract"], config["feats_extract_conf"])
    vocoder = vocoder.to(device).eval()
    with _about(config_file):
        return with_refinement(vocoder, config.get("refine", 0) if refine is None else refine)


def _empty_vocoder(config: Mapping[str, Any], source: object) -> AbsVocoder:
    """Build a vocoder to load weights into, without memory for its own where everything comes from the state dict."""
    if config["vocoder"] in VOCODERS and VOCODERS[config["vocoder"]].state_is_whole:
        with torch.device("meta"):
            vocoder = vocoder_from_config(config, source)
        loaded = vocoder.state_dict()
        if all(name in loaded for name, _ in vocoder.named_buffers()):
            return vocoder
    return vocoder_from_config(config, source)


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give the weights that a path stands for: a file of weights, a folder, or a zip file (unpacked for the time).

    Raises:
        ValueError: If a folder or zip file doesn't hold exactly one model, or the zip file is broken.
    """
    if path.is_dir():
        yield _weights_in(path, path)
    elif path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)  # never outside the folder: zipfile sees to that
            except Exception as error:  # what is damaged makes zipfile fail in many ways
                raise ValueError(f"{path} is broken or no zip file: {error}") from error
            weights = _weights_in(Path(folder), path)
            try:
                yield weights
            except ValueError as error:  # about a file that is called otherwise to whoever gave the zip file
                raise ValueError(f"{path}: {str(error).replace(f'{folder}/', '')}") from error
    else:
        yield path


def _weights_in(folder: Path, source: Path) -> Path:
    found = sorted({config.parent for config in folder.rglob("config.yaml") if any(config.parent.glob("*.pth"))})
    if len(found) != 1:
        raise ValueError(f"{source} must hold one config.yaml beside weights (*.pth), found {len(found)}")
    names = sorted(path.name for path in found[0].glob("*.pth") if path.name != "checkpoint.pth")
    for name in ("valid.loss.best.pth", "model.pth", *(names if len(names) == 1 else ())):
        if name in names:
            return found[0] / name
    raise ValueError(f"{source} holds several weights, name one of them: {', '.join(names)}")


def read_config(config_file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a training configuration and check that it is a vocoder's.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it isn't a vocoder's.
    """
    if not Path(config_file).is_file():
        raise FileNotFoundError(f"no configuration at {config_file}: it belongs beside the weights")
    text = Path(config_file).read_bytes()
    try:
        config = yaml.safe_load(text.decode("utf-8"))
    except Exception as error:  # besides its own errors PyYAML lets those of numbers, dates and deep nesting pass
        raise ValueError(f"{config_file} is not a YAML file: {error}") from error
    needed = ("vocoder", "vocoder_conf", "feats_extract", "feats_extract_conf")
    missing = [key for key in needed if not isinstance(config, Mapping) or config.get(key) is None]
    if missing:
        raise ValueError(f"{config_file} is not the configuration of a vocoder: it has no {', '.join(missing)}")
    _check_values(config, config_file)
    return config


def _check_values(config: Mapping[str, Any], config_file: object) -> None:
    for key, kind in (("vocoder", str), ("feats_extract", str), ("vocoder_conf", dict), ("feats_extract_conf", dict)):
        if not isinstance(config[key], kind):
            raise ValueError(f"{config_file}: {key} must be {_KINDS[kind]}, not {config[key]!r:.100}")
    conf = config["feats_extract_conf"]
    missing = [key for key in _MOST if key not in conf]
    if missing:
        raise ValueError(f"{config_file}: feats_extract_conf has no {', '.join(missing)}")
    for key, most in _MOST.items():
        if isinstance(conf[key], bool) or not isinstance(conf[key], int) or not 0 < conf[key] <= most:
            raise ValueError(f"{config_file}: {key} must be a whole number from 1 to {most}, not {conf[key]!r:.100}")


def vocoder_from_config(config: Mapping[str, Any], source: object = "the configuration") -> AbsVocoder:
    """Build an untrained vocoder from :func:`read_config`'s result.

    Raises:
        ValueError: If the class takes no such options; the message names ``source``.
    """
    sizes = {key: config["feats_extract_conf"][key] for key in ("fs", "hop_length", "n_mels")}
    with _about(source):
        return build_vocoder(config["vocoder"], **sizes, conf=config["vocoder_conf"])


@contextlib.contextmanager
def _about(config: object) -> Iterator[None]:
    """Name the configuration whose values can't be used in the block.

    Raises:
        ValueError: Whatever happens: values of other types make Python and PyTorch fail in many ways.
    """
    try:
        yield
    except Exception as error:
        raise ValueError(f"{config}: {error}") from error


def read_tensors(path: str | os.PathLike[str], mmap: bool = False) -> Any:
    """Read what ``torch.save`` wrote, onto the CPU, as long as it is tensors and plain values.

    Args:
        path: The file; ESPnet2's checkpoint.pth is one, too.
        mmap: Leave tensors on the disk until they are used.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is broken or holds code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    with weights_only(path):
        return torch.load(path, map_location="cpu", mmap=mmap, weights_only=True)


@contextlib.contextmanager
def weights_only(path: object) -> Iterator[None]:
    """Surround a ``torch.load(..., weights_only=True)``: checkpoints of ESPnet2 are read, and what is refused is named.

    Raises:
        ValueError: If the file is broken or holds code.
    """
    # The types of ESPnet2's figures in a checkpoint, none of which runs code.
    scalar = np.float64(0).__reduce__()[0]
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")  # of NumPy 2 and 1
    kinds = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)]
    torch.serialization.add_safe_globals([datetime.timedelta, np.dtype, *kinds, *((scalar, name) for name in names)])
    try:
        yield
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} was not loaded: it holds more than weights, or is no checkpoint: {error}") from error
    except Exception as error:  # a damaged file makes the unpickler fail in many ways
        raise ValueError(f"{path} is broken or no checkpoint: {error!r}") from error


def read_state_dict(model_file: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a vocoder's weights, saved alone, inside a training model, by DistributedDataParallel, or in a checkpoint.

    Args:
        model_file: A file of weights, or a packed model: a zip file, or the folder that it was unpacked to.

    Returns:
        The tensors, by the vocoder's own names: without ``module.`` and ``vocoder.`` before them.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is broken, holds code, or no weights.
    """
    with unpacked(Path(model_file)) as weights:
        states = read_tensors(weights)
    if isinstance(states, Mapping) and isinstance(states.get("model"), Mapping):
        states = states["model"]  # a training checkpoint: model, optimiser and more
    if not isinstance(states, Mapping) or not all(isinstance(value, Tensor) for value in states.values()):
        raise ValueError(f"{model_file} holds no state dict")
    names = [str(key) for key in states]
    if all(name.startswith(PARALLEL) for name in names):
        names = [name.removeprefix(PARALLEL) for name in names]
    return dict(zip((name.removeprefix(PREFIX) for name in names), states.values(), strict=True))


def check_keys(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], model: object, config: object) -> None:
    """Compare names and shapes of weights with those of the model that the configuration describes.

    Raises:
        ValueError: If they differ; the message names both files, the counts, and the first differences.
    """
    missing = [key for key in expected if key not in found]
    unknown = [key for key in found if key not in expected]
    shapes = [
        f"{key}: {tuple(found[key].shape)} in the weights, {tuple(expected[key].shape)} by the configuration"
        for key in expected
        if key in found and found[key].shape != expected[key].shape
    ]
    if not (missing or unknown or shapes):
        return
    lines = [f"the weights in {model} don't fit {config}:"]
    for title, items in (("missing", missing), ("not in the model", unknown), ("other shapes", shapes)):
        if items:
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            lines.append(f"  {len(items)} {title}: {'; '.join(items[:3])}{more}")
    raise ValueError("\n".join(lines))


def save_vocoder(vocoder: AbsVocoder, config: Mapping[str, Any], output_dir: str | os.PathLike[str]) -> Path:
    """Write config.yaml and model.pth, as training leaves them and :func:`load_vocoder` reads them.

    Args:
        vocoder: The vocoder.
        config: Configuration with the keys that :func:`read_config` asks for.
        output_dir: Folder to make or use.

    Returns:
        Path of the weights.
    """
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model_file = folder / "model.pth"
    partial = folder / f".model.pth.{os.getpid()}"
    torch.save({PREFIX + key: value for key, value in vocoder.state_dict().items()}, partial)
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    os.replace(partial, model_file)
    return model_file
