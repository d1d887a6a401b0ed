"""One sound, however a vocoder is called: modes, compilers, threads, kinds of arrays; else a sentence says why not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny_voice
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

N_MELS, HOP = 6, 32
#: What else a network may hold: a linear prediction, mixed channels, conditioning per block.
OTHER = dict(n_block=3, n_flow=3, filter_size=8, upsample_scales=(4, 8), block_per_split=1, mixing=True)
OTHER |= dict(prediction_order=6, first_squeeze=4, cond_channels=4, cond_filter_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a small vocoder."""
    made = tmp_path_factory.mktemp("voice")
    tiny_voice.make_voice(made)
    return made


@pytest.fixture(params=["paper's", "other"])
def voice(request: pytest.FixtureRequest, folder: Path) -> FloWaveNetVocoder:
    """Return a small vocoder."""
    if request.param == "paper's":
        return load_vocoder(folder / "model.pth")
    torch.manual_seed(0)
    made = FloWaveNetVocoder(16000, HOP, N_MELS, **OTHER)
    for parameter in made.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    return made.eval()


def features(frames: int = 9, seed: int = 1) -> Tensor:
    """Return some."""
    return torch.randn(frames, N_MELS, generator=torch.Generator().manual_seed(seed))


def waveform(frames: int = 9) -> Tensor:
    """Return one for as many frames."""
    return 0.1 * torch.randn(frames * HOP, generator=torch.Generator().manual_seed(2))


def joined(pieces: Iterator[Tensor]) -> Tensor:
    """Return a stream's sound as a whole."""
    return torch.cat(list(pieces))


#: Each way to use a vocoder, with one result.
USES: dict[str, Callable[[FloWaveNetVocoder, Tensor], Tensor]] = {
    "inference": lambda voice, feats: voice.inference(feats, seed=1),
    "batch": lambda voice, feats: torch.cat(voice.inference_batch([feats, feats[:4]], seeds=[1, 2])),
    "stream": lambda voice, feats: joined(voice.stream(iter([feats[:2], feats[2:]]), seed=1, chunk_frames=2)),
    "likelihood": lambda voice, feats: voice.log_likelihood(waveform(), feats),
}


@pytest.mark.parametrize("use", USES)
def test_inference_mode(voice: FloWaveNetVocoder, use: str) -> None:
    expected = USES[use](copy.deepcopy(voice), features())
    with torch.inference_mode():
        inside = USES[use](voice, features())  # the features are of this mode, too
    assert torch.equal(inside, expected)
    assert use in ("batch", "stream") or not inside.is_inference()  # those two were joined in this mode
    assert torch.equal(USES[use](voice, features()), expected)


def test_inference_mode_leaves_a_vocoder_that_can_be_trained(voice: FloWaveNetVocoder) -> None:
    feats, wav = features()[None], waveform()[None]
    with torch.inference_mode():
        loss = voice.loss(wav, feats, None, None)[0]
    assert not loss.requires_grad
    with torch.inference_mode():
        given = wav.clone(), feats.clone()
    again = voice.train().loss(*given, None, None)[0]
    again.backward()
    assert all(parameter.grad is not None for name, parameter in voice.named_parameters() if "prediction" not in name)


def test_loading_inside_inference_mode(folder: Path) -> None:
    expected = load_vocoder(folder / "model.pth").inference(features(), seed=1)
    with torch.inference_mode():
        voice = load_vocoder(folder / "model.pth")
        assert torch.equal(voice.inference(features(), seed=1), expected)
    assert torch.equal(voice.inference(features(), seed=1), expected)
    voice.train().loss(waveform()[None], features()[None], None, None)[0].backward()
    with torch.inference_mode():
        built = copy.deepcopy(voice).eval()  # all its weights are tensors of this mode, which don't tell of changes
        inside = built.inference(features(), seed=1)
        for parameter in built.parameters():
            parameter.mul_(0.9)
        changed = built.inference(features(), seed=1)
    assert not torch.equal(inside, changed)
    assert torch.equal(built.inference(features(), seed=1), changed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_loading_with_another_default_type(folder: Path, dtype: torch.dtype) -> None:
    feats = features()
    expected = load_vocoder(folder / "model.pth").inference(feats, seed=1)
    torch.set_default_dtype(dtype)
    try:
        voice = load_vocoder(folder / "model.pth")
        inside = voice.inference(feats, seed=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(inside, expected) and torch.equal(voice.inference(feats, seed=1), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_but_losses(voice: FloWaveNetVocoder, dtype: torch.dtype) -> None:
    for name, use in USES.items():
        expected = use(voice, features())
        with torch.autocast("cpu", dtype):
            assert torch.equal(use(voice, features()), expected), name


def test_a_stream_begun_inside_inference_mode_goes_on_outside(voice: FloWaveNetVocoder) -> None:
    expected = voice.inference(features(), seed=1)
    with torch.inference_mode():
        pieces = features().split(2)
        stream = voice.stream(iter(pieces), seed=1, chunk_frames=2)
        first = next(stream)
    torch.testing.assert_close(torch.cat([first, *stream]), expected, rtol=0, atol=1e-5)
    stream = voice.stream(iter(features().split(2)), seed=1, chunk_frames=2)
    first = next(stream)
    with torch.inference_mode():
        rest = list(stream)
    torch.testing.assert_close(torch.cat([first, *rest]), expected, rtol=0, atol=1e-5)


def refuse(graph: object, inputs: object) -> None:
    """Be a compiler that is never asked: of ours nothing is traced, which would take minutes."""
    raise AssertionError(f"{graph} was to be compiled")


def test_torch_compile_speaks_as_before(voice: FloWaveNetVocoder) -> None:
    expected, likelihood = voice.inference(features(), seed=1), voice.log_likelihood(waveform(), features())
    torch.manual_seed(3)
    called = voice(features())
    compiled = torch.compile(voice, backend=refuse)
    torch.manual_seed(3)
    assert torch.equal(compiled(features()), called)
    assert torch.equal(compiled.inference(features(), seed=1), expected)
    assert torch.equal(torch.compile(voice.inference, backend=refuse)(features(), seed=1), expected)
    assert torch.equal(compiled.log_likelihood(waveform(), features()), likelihood)
    loss = torch.compile(voice.loss, backend=refuse)(waveform()[None], features()[None], None, None)[0]
    torch.testing.assert_close(-loss, likelihood)
    loss.backward()


def test_after_for_inference_it_stays_where_it_is(voice: FloWaveNetVocoder) -> None:
    voice.for_inference()
    expected = voice.inference(features(), seed=1)
    for stays in (lambda: voice.to("cpu"), voice.float, lambda: voice.to(torch.float32), voice.eval):
        assert stays() is voice
    moves = (voice.double, voice.half, lambda: voice.to(torch.bfloat16), lambda: voice.to("meta"))
    for move, kind in zip(moves, ("float64", "float16", "bfloat16", "meta"), strict=True):
        with pytest.raises(ValueError, match=rf"on cpu in torch.float32: move or cast it .*{kind}.*before"):
            move()
    assert torch.equal(voice.inference(features(), seed=1), expected)
    assert torch.equal(copy.deepcopy(voice).inference(features(), seed=1), expected)


def test_casting_before_is_followed(voice: FloWaveNetVocoder) -> None:
    expected = voice.inference(features(), seed=1)
    wav = voice.double().inference(features(), seed=1)
    assert wav.dtype == torch.float64
    torch.testing.assert_close(wav.float(), expected, rtol=0, atol=1e-4)
    assert voice.float().inference(features(), seed=1).dtype == torch.float32


#: The same features otherwise; what can be said without loss is.
KINDS: dict[str, Callable[[Tensor], object]] = {
    "numpy": lambda feats: feats.numpy(),
    "numpy float64": lambda feats: feats.double().numpy(),
    "big endian": lambda feats: feats.numpy().astype(">f4"),
    "read only": lambda feats: np.frombuffer(feats.numpy().tobytes(), np.float32).reshape(feats.shape),
    "reversed twice": lambda feats: np.ascontiguousarray(feats.numpy()[::-1])[::-1],
    "float64": lambda feats: feats.double(),
    "other strides": lambda feats: feats.t().contiguous().t(),
    "with a gradient": lambda feats: feats.clone().requires_grad_(),
    "lists": lambda feats: feats.tolist(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_features(voice: FloWaveNetVocoder, kind: str) -> None:
    for use in USES.values():
        if kind == "lists" and use is USES["stream"]:
            continue
        expected = use(voice, features())
        given = use(voice, KINDS[kind](features()))
        assert isinstance(given, Tensor) and given.dtype == torch.float32 and not given.requires_grad
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-6)
    assert voice(KINDS[kind](features(3))).shape == (3 * HOP,)


def test_kinds_of_noise_and_waveforms(voice: FloWaveNetVocoder) -> None:
    noise, wav = waveform(), waveform()
    expected, likelihood = voice.inference(features(), noise=noise), voice.log_likelihood(wav, features())
    for other in (noise.numpy(), noise.double(), noise.double().numpy()):
        assert torch.equal(voice.inference(features(), noise=other), expected)
        assert torch.equal(voice.log_likelihood(other, features()), likelihood)
    half = voice.inference(features().half(), noise=noise)  # rounded before, but taken
    assert half.dtype == torch.float32


@pytest.mark.parametrize(
    "given, message",
    [
        (features().numpy()[None], r"shape \(frames, 6\), got \(1, 9, 6\)"),
        (np.zeros((0, N_MELS)), r"got \(0, 6\)"),
        (features().numpy() > 0, "features must be numbers.*bool"),
        (np.full((3, N_MELS), "a"), "features must be numbers"),
        (np.full((3, N_MELS), None), "features must be numbers.*object"),
        ([[1.0] * N_MELS, [1.0]], "features can't be read as an array"),
        (None, "features must be numbers.*NoneType"),
        ("feats.scp", "features must be numbers.*str"),
        (torch.zeros(3, N_MELS, dtype=torch.complex64), "real numbers, not torch.complex64"),
        (torch.full((3, N_MELS), torch.nan), "not finite"),
        (np.full((3, N_MELS), 1e300), "not finite"),  # too large for the weights' precision
        (np.float32(1), r"shape \(frames, 6\), got \(\)"),
    ],
    ids=str,
)
def test_features_that_say_nothing_are_refused(voice: FloWaveNetVocoder, given: object, message: str) -> None:
    uses = [use for name, use in USES.items() if name not in ("batch", "stream")]
    uses.append(lambda voice, feats: voice.inference_batch([features(), feats]))
    uses.append(lambda voice, feats: joined(voice.stream(iter([features(), feats]))))
    for use in uses:
        if use is uses[-1] and getattr(given, "shape", (1,))[:1] == (0,):  # a stream waits for more
            continue
        with pytest.raises(ValueError, match=message):
            use(voice, given)


def test_waveforms_that_say_nothing_are_refused(voice: FloWaveNetVocoder) -> None:
    integers = (32767 * waveform()).short()
    for wav in (integers, integers.numpy(), integers.tolist()):
        with pytest.raises(ValueError, match="int.*, not amplitudes.*32768"):
            voice.log_likelihood(wav, features())
    for call in (lambda wav: voice.log_likelihood(wav, features()), lambda wav: voice.inference(features(), noise=wav)):
        with pytest.raises(ValueError, match="not finite"):
            call(torch.full_like(waveform(), torch.nan))
    with pytest.raises(ValueError, match=r"waveform of shape \(samples,\), got \(1, 288\)"):
        voice.log_likelihood(waveform()[None], features())


def test_no_utterances_give_no_sound(voice: FloWaveNetVocoder) -> None:
    assert voice.inference_batch([]) == [] and voice.inference_batch([], seeds=[]) == []
    with pytest.raises(ValueError, match="1 seeds for 0 utterances"):
        voice.inference_batch([], seeds=[1])
    with pytest.raises(ValueError, match="features of several utterances are needed, not NoneType"):
        voice.inference_batch(None)
    expected = voice.inference_batch([features()], seeds=[1])[0]
    assert torch.equal(voice.inference_batch((feats for feats in [features().to_sparse()]), seeds=[1])[0], expected)


def test_threads_share_a_vocoder(voice: FloWaveNetVocoder) -> None:
    items = [features(3 + i, seed=i) for i in range(6)]
    alone = copy.deepcopy(voice)
    expected = [[use(alone, feats) for use in list(USES.values())[:3]] for feats in items]

    def speak(i: int) -> None:
        feats = items[i % len(items)]
        for use, wav in zip(list(USES.values())[:3], expected[i % len(items)], strict=True):
            assert torch.equal(use(voice, feats), wav)
            if i % 5 == 0:  # others find weights of another precision folded
                voice.inference(feats, seed=1, dtype=torch.bfloat16)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(speak, range(24)))
