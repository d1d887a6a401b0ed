"""ESPnet2's own inference with our vocoders: Text2Speech on a tiny Tacotron2, and the door for recipes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny_corpus
from flowavenet_plugin.bin.vocoder_inference import main as vocoder_inference
from flowavenet_plugin.data.scp import write_scp
from flowavenet_plugin.tasks.tts_adapter import TASKS
from tiny_tts import DOOR, TACOTRON2, conf
from tiny_voice import make_voice


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the weights of a small vocoder."""
    return make_voice(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the configuration of an untrained Tacotron2, made by ESPnet2's own command line."""
    from espnet2.tasks.tts import TTSTask

    folder = tmp_path_factory.mktemp("tts")
    (folder / "tokens").write_text("<blank>\n<unk>\na\nb\nc\n<sos/eos>\n")
    command = ["--dry_run", "true", "--output_dir", str(folder), "--token_list", str(folder / "tokens")]
    command += ["--token_type", "char", "--cleaner", "none", "--g2p", "none", "--normalize", "none"]
    command += ["--tts", "tacotron2", "--feats_extract", "fbank"]
    command += [*conf("tts_conf", TACOTRON2), *conf("feats_extract_conf", tiny_corpus.FEATS_CONF)]
    TTSTask.main(cmd=command)
    return folder / "config.yaml"


def test_importing_the_package_patches_nothing() -> None:
    code = (
        "import sys, flowavenet_plugin, flowavenet_plugin.tasks.tts_adapter as adapter\n"
        "print(any(isinstance(f, adapter._Finder) for f in sys.meta_path))\n"
        "import flowavenet_plugin.espnet\n"
        "import flowavenet_plugin.espnet\n"
        "print(sum(isinstance(f, adapter._Finder) for f in sys.meta_path), 'espnet2' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "1", "False"]


def test_every_task_with_a_vocoder_builder_builds_ours(voice: Path) -> None:
    # In a process of its own: these imports and patches are to leave the other tests alone.
    code = (
        "import importlib, sys, torch, espnet2.tasks.tts\n"
        "import flowavenet_plugin.espnet\n"  # one task was imported before, the others come after
        f"feats, pitch = torch.zeros(3, {tiny_corpus.N_MELS}), torch.full((3, 1), 100.0)\n"
        f"for module, task in {TASKS!r}.items():\n"
        "    build = getattr(importlib.import_module(module), task).build_vocoder_from_file\n"
        "    vocoder = build(None, sys.argv[1], None, 'cpu')\n"
        "    torch.manual_seed(0)\n"
        "    said = [vocoder(feats), vocoder(feats, pitch)]\n"  # SVS adds the pitch
        "    print('built', vocoder.fs, len(said[0]), torch.equal(*said))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(voice)], capture_output=True, text=True, check=True)
    built = [line for line in run.stdout.splitlines() if line.startswith("built")]
    assert built == [f"built {tiny_corpus.FS} {3 * tiny_corpus.HOP} True"] * len(TASKS)
    import espnet2

    tasks = Path(espnet2.__file__).parent / "tasks"
    found = {path.stem for path in tasks.glob("*.py") if "def build_vocoder_from_file" in path.read_text()}
    assert {f"espnet2.tasks.{name}" for name in found} == set(TASKS)


SPEAK = """
import sys
import torch
import flowavenet_plugin.espnet
from espnet2.bin.tts_inference import Text2Speech
config, voice, folder = sys.argv[1:]
torch.manual_seed(0)
speak = Text2Speech(train_config=config, vocoder_file=voice, maxlenratio=4.0, minlenratio=4.0, threshold=1.0)
speak.vocoder.vocoder.checks = False  # what a model says that isn't trained is no speech
torch.manual_seed(5)
out = speak("abc")
torch.save({"wav": out["wav"], "feats": out["feat_gen"], "fs": speak.fs}, folder + "/out.pth")
speak = Text2Speech(train_config=config, maxlenratio=1.0)
print("griffin-lim", type(speak.vocoder).__name__, len(speak("abc")["wav"]) > 0)
for file, error in (("none.pkl", Exception), ("none.pth", FileNotFoundError)):
    try:
        Text2Speech(train_config=config, vocoder_file=file)
    except error as raised:
        print(file, type(raised).__name__)
"""


def test_text2speech_speaks_and_the_command_says_the_same(tts: Path, voice: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SPEAK, str(tts), str(voice), str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert "griffin-lim Spectrogram2Waveform True" in lines
    # .pkl goes to ESPnet2's own code, whatever that makes of it; other files are ours.
    assert any(line.startswith("none.pkl") for line in lines) and "none.pth FileNotFoundError" in lines
    out = torch.load(tmp_path / "out.pth")
    assert out["fs"] == tiny_corpus.FS and out["wav"].shape == (len(out["feats"]) * tiny_corpus.HOP,)

    np.save(tmp_path / "a.npy", out["feats"].numpy())
    write_scp(tmp_path / "feats.scp", {"a": tmp_path / "a.npy"})
    command = ["--scp", str(tmp_path / "feats.scp"), "--model_file", str(voice), "--seed", "5"]
    vocoder_inference([*command, "--output_dir", str(tmp_path / "decoded")])
    import soundfile

    written, _ = soundfile.read(tmp_path / "decoded" / "wav" / "a.wav")
    np.testing.assert_allclose(written, out["wav"].clamp(-1, 1).numpy(), atol=1.01 / 2**15)


def test_the_vocoder_without_weights_speaks_for_any_model(tts: Path, tmp_path: Path) -> None:
    from flowavenet_plugin.bin.make_mel_inversion import main as make_mel_inversion

    archive = tmp_path / "mel_inversion.zip"
    make_mel_inversion(["--config", str(tts), "--outpath", str(archive), "--iterations", "2"])
    run = subprocess.run(
        [sys.executable, "-c", SPEAK, str(tts), str(archive), str(tmp_path)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    out = torch.load(tmp_path / "out.pth")
    assert out["fs"] == tiny_corpus.FS and out["wav"].shape == (len(out["feats"]) * tiny_corpus.HOP,)
    assert torch.isfinite(out["wav"]).all()


def test_features_that_differ_stop_with_a_table(tts: Path, voice: Path, tmp_path: Path) -> None:
    text = tts.read_text().replace(f"hop_length: {tiny_corpus.HOP}", "hop_length: 40")
    (tmp_path / "config.yaml").write_text(text)
    code = "import flowavenet_plugin.espnet, sys\nfrom espnet2.bin.tts_inference import Text2Speech\n"
    code += "Text2Speech(train_config=sys.argv[1], vocoder_file=sys.argv[2])"
    command = [sys.executable, "-c", code, str(tmp_path / "config.yaml"), str(voice)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode != 0
    row = [line for line in run.stderr.splitlines() if line.startswith("hop_length")]
    assert row and row[0].split()[:3] == ["hop_length", "40", "32"]


def door(*words: str, **options: object) -> subprocess.CompletedProcess:
    """Run something through the door."""
    return subprocess.run([*DOOR, *words], capture_output=True, text=True, **options)


def test_door_runs_modules_scripts_and_code_as_python_does(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, helper\nprint(__name__, sys.argv[1:], helper.__name__)\nsys.exit(int(sys.argv[1]))\n"
    )
    (tmp_path / "helper.py").write_text("")
    for words in ([str(script), "3", "-x"], ["-m", "script", "4"]):
        plain = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=tmp_path)
        ours = door(*words, cwd=tmp_path)
        assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout) and plain.returncode in (3, 4)
    code = "import sys; print(__name__, sys.argv, 'espnet2' in sys.modules, 'torch' in sys.modules); sys.exit(7)"
    run = door("-c", code, "one", "two words")
    assert run.returncode == 7 and run.stdout.strip() == "__main__ ['-c', 'one', 'two words'] False False"
    assert door("-m", "json.tool", input='{"a": 1}').stdout.split() == ["{", '"a":', "1", "}"]
    assert door("-m", "no_such_module").returncode == 1 and "no_such_module" in door("-m", "no_such_module").stderr
    assert door().returncode == 2 and door("-m").returncode == 2 and door("--wrong").returncode == 2
    assert door("--help").returncode == 0


def test_door_leaves_spawned_processes_alone(tmp_path: Path) -> None:
    # ESPnet2's training on several devices spawns, and a spawned child imports the main module again.
    (tmp_path / "spawner.py").write_text(
        "import multiprocessing\n"
        "def work(queue):\n    queue.put(__name__)\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('spawn')\n"
        "    queue = context.Queue()\n"
        "    child = context.Process(target=work, args=(queue,))\n"
        "    child.start()\n    print(queue.get(timeout=50))\n    child.join()\n"
    )
    for words in (["-m", "spawner"], ["spawner.py"]):
        run = door(*words, cwd=tmp_path)
        assert (run.returncode, run.stdout.strip()) == (0, "__mp_main__"), run.stderr


def test_door_passes_signals_on() -> None:
    process = subprocess.Popen(
        [*DOOR, "-c", "import time; print('up', flush=True); time.sleep(60)"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    process.stdout.close()


def test_door_lets_espnet2_inference_take_our_vocoder(tts: Path, voice: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("utt1 abc\nutt2 cab\n")
    command = ["-m", "espnet2.bin.tts_inference", "--ngpu", "0", "--seed", "5", "--output_dir", str(tmp_path / "out")]
    command += ["--train_config", str(tts), "--vocoder_file", str(voice), "--maxlenratio", "4", "--minlenratio", "4"]
    command += [
        "--data_path_and_name_and_type",
        f"{tmp_path}/text,text,text",
        "--threshold",
        "1.0",
        "--num_workers",
        "0",
    ]
    run = door(*command, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    wavs = sorted(path.name for path in (tmp_path / "out" / "wav").glob("*.wav"))
    assert wavs == ["utt1.wav", "utt2.wav"]

    import soundfile

    decoded = ["--scp", str(tmp_path / "out/norm/feats.scp"), "--model_file", str(voice), "--seed", "5"]
    vocoder_inference([*decoded, "--output_dir", str(tmp_path / "again")])
    for name in wavs:  # both ways sound alike
        one, two = (soundfile.read(tmp_path / folder / "wav" / name)[0] for folder in ("out", "again"))
        np.testing.assert_allclose(one, two, atol=1.01 / 2**15)
        assert len(one) % tiny_corpus.HOP == 0
