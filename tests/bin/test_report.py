"""The report's page: complete in itself, right in what it says, and alive in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from flowavenet_plugin.bin import evaluate, report
from flowavenet_plugin.data.scp import write_scp

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
    for dataset in ("dev", "eval1"):
        natural = write_wavs(folder.parents[1] / "dump" / dataset, 1.0, 0.0)
        other = write_wavs(folder.parents[1] / "other" / dataset, 0.5, 0.0)
        for tag, noise, temperature in ((TAG, 0.01, 0.8), ("temperature0.5_x", 0.005, 0.5))[
            : 2 if dataset == "dev" else 1
        ]:
            generated = write_wavs(folder / tag / dataset / "wav", 1.0, noise)
            options = [f"--ref_scp={natural}", f"--gen_scp={generated}", "--title=voc_x & more"]
            options += [f"--compare=other={other}", f"--inference_args=--temperature {temperature}"]
            evaluate.main([*options, f"--output_dir={folder / tag / dataset / 'scoring'}"])
    (folder / "train.log").write_text("1epoch results: [train] loss=2.0, time=1 second, [valid] loss=1.5\n")
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
    assert all(source.startswith("data:") for _, source in sources)
    kinds = [tag for tag, _ in sources]
    # dev: natural, ours, other, another temperature; eval1: natural, ours, other; a picture each, and the losses
    assert kinds.count("audio") == 3 * 4 + 3 * 3
    assert kinds.count("img") == 3 + 3 + 1
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
    assert "To hear: 2 of 3 utterances." in page.text
    first = next(source for tag, source in page.sources if tag == "audio")
    assert soundfile.info(io.BytesIO(base64.b64decode(first.partition(",")[2]))).frames == FS // 4


def test_names_are_shown_as_they_are(experiment: Path) -> None:
    text = make(experiment).text
    for words in ("voc_x & more", "utt<3>", "# <b>", "temperature 0.8", "temperature 0.5", "other"):
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


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tag/dev/scoring/scores.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(SystemExit, match=f"{path}: "):
        report.main([f"--experiment={tmp_path}"])


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
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 375
        page.screenshot(path=tmp_path / "report.png", full_page=True)
        browser.close()
    assert complaints == []
