"""The report's page: complete in itself, right in what it says, and alive in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowavenet_plugin.bin import evaluate, report
from flowavenet_plugin.data.provenance import file_checksum
from flowavenet_plugin.data.scp import write_scp
from scoring_case import SLOW

FS = 16000
UTTS = ("utt1", "utt2", "utt<3>")
TAG = "decode_valid.loss.best"


def write_wavs(folder: Path, scale: float, noise: float) -> Path:
    """Utterances of half a second: a harmonic tone with noise."""
    rng = np.random.default_rng(1)
    wavs = {}
    for number, utt in enumerate(UTTS):
        time = np.arange(8000 + 100 * number) / FS
        wav = sum(0.05 * np.sin(2 * np.pi * 150 * k * time) for k in range(1, 8))
        wavs[utt] = folder / f"{number}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(wavs[utt], scale * wav + noise * rng.normal(size=len(wav)), FS, subtype="PCM_16")
    write_scp(folder / "wav.scp", wavs)
    return folder / "wav.scp"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with two sets decoded, one of them at another temperature as well."""
    folder = tmp_path_factory.mktemp("with space") / "exp" / "voc_x"
    write_scp(folder / "text", dict.fromkeys(UTTS, "What is <said>."))
    for dataset in ("dev", "eval1"):
        natural = write_wavs(folder.parents[1] / "dump" / dataset, 1.0, 0.0)
        other = write_wavs(folder.parents[1] / "other" / dataset, 0.5, 0.0)
        for tag, noise, temperature in ((TAG, 0.01, 0.8), ("temperature0.5_x", 0.005, 0.5))[
            : 2 if dataset == "dev" else 1
        ]:
            generated = write_wavs(folder / tag / dataset / "wav", 1.0, noise)
            options = [f"--ref_scp={natural}", f"--gen_scp={generated}", "--title=voc_x & more"]
            options += [f"--compare=other={other}", f"--inference_args=--temperature {temperature}"]
            options += [f"--text={folder / 'text'}", *SLOW]
            evaluate.main([*options, f"--output_dir={folder / tag / dataset / 'scoring'}"])
    parts = "loss=2.0, log_likelihood=-2.0, log_p=-3.0, logdet=1.0"
    (folder / "train.log").write_text(f"1epoch results: [train] {parts}, time=1 second, [valid] {parts}\n")
    (folder / "config.yaml").write_text("vocoder: flowavenet # <b>\n")
    return folder


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href"):
                self.sources.append((tag, value or ""))

    def handle_data(self, data: str) -> None:
        self.text += data


def make(experiment: Path, *options: str) -> Page:
    report.main([f"--experiment={experiment}", f"--inference_tag={TAG}", *options])
    return Page((experiment / "report.html").read_text(encoding="utf-8"))


def test_the_page_needs_nothing_else(experiment: Path) -> None:
    sources = make(experiment).sources
    assert all(source.startswith(("data:", "#")) for _, source in sources)
    kinds = [tag for tag, _ in sources]
    # dev: natural, ours, other, another temperature; eval1: natural, ours, other
    assert kinds.count("audio") == 3 * 4 + 3 * 3
    pitch = 6 if find_spec("pyworld") else 0
    assert kinds.count("img") == 3 * 4 + 3 * 3 + pitch + 2  # loss and likelihood
    text = (experiment / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://", text)


def test_the_sounds_are_the_recordings(experiment: Path) -> None:
    audio = [source for tag, source in make(experiment, "--num_clips=1").sources if tag == "audio"]
    files = [experiment.parents[1] / "dump/dev/0.wav", experiment / TAG / "dev/wav/0.wav"]
    for source, file in zip(audio, files, strict=False):
        packed, _ = soundfile.read(io.BytesIO(base64.b64decode(source.partition(",")[2])), dtype="int16")
        np.testing.assert_array_equal(packed, soundfile.read(file, dtype="int16")[0])


def test_long_clips_are_cut_and_the_page_says_so(experiment: Path) -> None:
    page = make(experiment, "--num_clips=2", "--max_seconds=0.25")
    assert "utt1 (first 0.25 s of 0.5 s)" in page.text
    assert "To hear: 2 of 3 utterances, the recordings and 3 of 3 systems." in page.text
    first = next(source for tag, source in page.sources if tag == "audio")
    assert soundfile.info(io.BytesIO(base64.b64decode(first.partition(",")[2]))).frames == FS // 4


def test_names_are_shown_as_they_are(experiment: Path) -> None:
    text = make(experiment).text
    for words in ("voc_x & more", "utt<3>", "What is <said>.", "# <b>", "temperature 0.8", "temperature 0.5", "other"):
        assert words in text, words


def test_the_scores_are_those_of_scores_json(experiment: Path) -> None:
    text = make(experiment).text
    for tag in (TAG, "temperature0.5_x"):
        scores = json.loads((experiment / tag / "dev/scoring/scores.json").read_text())
        for column in scores["systems"][0]["columns"]:
            if column["values"]:
                assert f"{np.mean(list(column['values'].values())):.3f}" in text, column["name"]
    rows = [line for line in (experiment / "RESULTS.md").read_text().splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "dataset",
        "dev temperature 0.8",
        "dev other",
        "dev temperature 0.5",
        "eval1 temperature 0.8",
        "eval1 other",
    ]


def test_of_many_decodings_few_are_heard(experiment: Path) -> None:
    audio = [tag for tag, _ in make(experiment, "--max_systems=3", "--num_clips=1").sources if tag == "audio"]
    assert len(audio) == 3 + 3  # natural, ours and the other system, of each set


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--experiment=/no/such"], "no \\*/\\*/scoring/scores.json in /no/such"),
        (["--inference_tag=none"], "no none/\\*/scoring/scores.json in"),
        (["--num_clips=0"], "--num_clips is 0, at least 1"),
        (["--max_systems=1"], "--max_systems is 1, at least 2"),
    ],
)
def test_what_cannot_be_shown_is_refused(experiment: Path, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"^report: error: .*{message}"):
        report.main([f"--experiment={experiment}", *options])


@pytest.mark.parametrize(
    ("content", "message"), [("{", ": Expecting"), ("[]", " has no level, "), ('{"title": "x"}', " has no level, ")]
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tag/dev/scoring/scores.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(SystemExit, match=f"{path}{message}"):
        report.main([f"--experiment={tmp_path}"])


@pytest.fixture
def changed(experiment: Path, tmp_path: Path) -> Path:
    """The experiment with scores.json of dev to be changed, and a report that was made before."""
    copy = tmp_path / "voc_x"
    shutil.copytree(experiment, copy)
    (copy / "report.html").write_text("an earlier report")
    return copy


def change(experiment: Path, system: str, utt: str, file: Path | None) -> None:
    path = experiment / TAG / "dev/scoring/scores.json"
    scores = json.loads(path.read_text())
    wavs = scores["natural"] if system == "natural" else scores["systems"][0]["wavs"]
    wavs[utt] = str(file or "/no/such.wav")
    if file is not None:
        scores["systems"][0]["checksums"][utt] = file_checksum(file)
    path.write_text(json.dumps(scores))


def test_missing_natural_speech_is_an_error_and_the_earlier_page_stays(changed: Path) -> None:
    change(changed, "natural", "utt1", None)
    with pytest.raises(SystemExit, match="report: error: .*utt1.*no such audio file: /no/such.wav"):
        report.main([f"--experiment={changed}", f"--inference_tag={TAG}"])
    assert (changed / "report.html").read_text() == "an earlier report"


def test_another_rate_is_an_error_with_both(changed: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "other.wav", np.zeros(8000), 8000)
    change(changed, "ours", "utt1", tmp_path / "other.wav")
    with pytest.raises(SystemExit, match=f"utt1: the natural speech has {FS} Hz, .*other.wav of .* has 8000 Hz"):
        report.main([f"--experiment={changed}", f"--inference_tag={TAG}"])
    assert (changed / "report.html").read_text() == "an earlier report"


def test_audio_that_was_deleted_is_left_out_and_told(changed: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(changed, "ours", "utt1", None)
    page = make(changed, "--num_clips=1")
    assert [tag for tag, _ in page.sources].count("audio") == 3 + 3
    assert "utt1: no audio of temperature 0.8: /no/such.wav" in caplog.text


def test_the_best_of_each_figure_is_marked(experiment: Path) -> None:
    """Less is better; of dev, the other system is the recording at half its scale, 6.02 dB away in every bin."""
    make(experiment)
    text = (experiment / "report.html").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "log-spectral distance (dB) ↓" in line)
    cells = re.findall(r"<td><span( class=\"best\")?>([0-9.]+)</span>", line)
    assert len(cells) == 3
    least = min(float(value) for _, value in cells)
    assert [bool(mark) for mark, _ in cells] == [float(value) == least for _, value in cells]


def test_the_page_lives_in_a_browser(experiment: Path, tmp_path: Path) -> None:
    """On a phone's screen: players load and play, pictures show, nothing is complained of, fetched or cut off."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install playwright")
    programs = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    program = next((path for path in programs if path), None)
    make(experiment)
    with playwright.sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
            )
        except playwright.Error as error:
            pytest.skip(f"no browser: apt install chromium, or playwright install chromium ({str(error)[:80]})")
        page = browser.new_page(viewport={"width": 375, "height": 812})
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)
        page.goto((experiment / "report.html").as_uri())
        page.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.readyState >= 1 || a.error)")
        durations = page.evaluate("[...document.querySelectorAll('audio')].map(a => a.error ? -1 : a.duration)")
        assert durations[:4] == pytest.approx([0.5] * 4, abs=0.01)
        assert min(durations) > 0.4
        page.evaluate("document.querySelectorAll('audio')[1].play()")
        page.wait_for_function("document.querySelectorAll('audio')[1].currentTime > 0")
        assert page.locator(".cursor").nth(1).is_visible() and not page.locator(".cursor").nth(2).is_visible()
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
        # a click in the middle of a spectrogram plays from about there, and stops the other
        page.locator(".picture").nth(0).click()
        page.wait_for_function("document.querySelectorAll('audio')[0].currentTime > 0.15")
        assert page.evaluate("document.querySelectorAll('audio')[1].paused")
        assert page.evaluate("[...document.querySelectorAll('details')].map(one => one.open)")[:2] == [True, False]
        for width in (375, 1200):
            page.set_viewport_size({"width": width, "height": 812})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert complaints == []
