"""utils/: job runner, list splitter and option parser, run as programs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

UTILS = Path(__file__).resolve().parents[2] / "utils"


def run(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and return its status and output."""
    environment = {**os.environ, **(env or {})}
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, env=environment, timeout=60)


def run_pl(*words: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run run.pl."""
    return run(UTILS / "run.pl", *words, env=env)


def test_array_runs_every_job_with_its_number(tmp_path: Path) -> None:
    done = run_pl("JOB=2:4", tmp_path / "log" / "work.JOB.log", "echo", "job JOB of 3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in (tmp_path / "log").iterdir()) == ["work.2.log", "work.3.log", "work.4.log"]
    lines = (tmp_path / "log" / "work.3.log").read_text().splitlines()
    assert lines[0] == "# echo 'job 3 of 3'"
    assert lines[1].startswith("# Started at ")
    assert lines[3] == "job 3 of 3"
    assert lines[-1].startswith("# Ended (code 0) at ")


def test_jobs_run_at_the_same_time_up_to_the_limit(tmp_path: Path) -> None:
    def most_at_once(*options: object) -> int:
        marks = tmp_path / "-".join(map(str, options))
        marks.mkdir()
        script = f"touch {marks}/JOB; ls {marks} | wc -l; sleep 0.4; rm {marks}/JOB"
        assert run_pl(*options, "JOB=1:4", marks / "log" / "JOB.log", "bash", "-c", script).returncode == 0
        counts = [int((marks / "log" / f"{job}.log").read_text().splitlines()[3]) for job in range(1, 5)]
        return max(counts) - 1  # the folder of the logs is in the list, too

    assert most_at_once("--max-jobs-run", 1) == 1
    assert most_at_once("--max-jobs-run", 4) > 1


def test_failing_job_fails_the_call_and_is_named(tmp_path: Path) -> None:
    done = run_pl("JOB=1:3", tmp_path / "x.JOB.log", "bash", "-c", "echo reason; [ JOB != 2 ] || exit 7")
    assert done.returncode == 1
    assert f"1 / 3 failed, log is in {tmp_path}/x.2.log" in done.stderr
    assert (tmp_path / "x.1.log").read_text().splitlines()[-1].startswith("# Ended (code 0)")
    failed = (tmp_path / "x.2.log").read_text().splitlines()
    assert "reason" in failed
    assert failed[-1].startswith("# Ended (code 7)")
    assert (tmp_path / "x.3.log").exists()  # a failure does not stop the others


def test_single_job_and_missing_program(tmp_path: Path) -> None:
    assert run_pl(tmp_path / "one.log", "true").returncode == 0
    done = run_pl(tmp_path / "two.log", "no-such-program")
    assert done.returncode == 1
    assert "two.log" in done.stderr
    assert "Ended (code 127)" in (tmp_path / "two.log").read_text()


def test_options_of_queues_are_accepted(tmp_path: Path) -> None:
    options = (
        "--gpu",
        2,
        "--mem",
        "4G",
        "--num_threads",
        2,
        "--name",
        "x",
        "--time",
        "1:00",
        "--config",
        "conf/q.conf",
    )
    assert run_pl(*options, tmp_path / "a.log", "true").returncode == 0
    assert run_pl("JOB=1:2", *options, tmp_path / "a.JOB.log", "true").returncode == 0


@pytest.mark.parametrize("setting, expected", [("4,7", ["4", "7"]), ("5", ["5", "5"]), ("", ["", ""])])
def test_jobs_of_an_array_get_their_own_devices(tmp_path: Path, setting: str, expected: list[str]) -> None:
    env = {"CUDA_VISIBLE_DEVICES": setting}
    command = ("bash", "-c", "echo $CUDA_VISIBLE_DEVICES; sleep 0.3")
    assert run_pl("--gpu", 1, "--max-jobs-run", 2, "JOB=1:2", tmp_path / "JOB.log", *command, env=env).returncode == 0
    assert sorted((tmp_path / f"{job}.log").read_text().splitlines()[3] for job in (1, 2)) == expected


def test_a_single_job_sees_all_devices(tmp_path: Path) -> None:
    env = {"CUDA_VISIBLE_DEVICES": "4,7"}
    assert run_pl("--gpu", 1, tmp_path / "a.log", "bash", "-c", "echo $CUDA_VISIBLE_DEVICES", env=env).returncode == 0
    assert (tmp_path / "a.log").read_text().splitlines()[3] == "4,7"


def test_words_reach_the_command_unchanged_and_pipes_reach_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    words = ["two words", "it's", "$HOME", "[16,", "*", "a;b", ""]
    assert run_pl(folder / "a.log", "printf", "%s\\n", *words, "|", "cat", ">", folder / "out").returncode == 0
    assert (folder / "out").read_text().splitlines() == words
    assert run_pl(folder / "b.log", "false", "|", "cat").returncode == 1  # a failure inside a pipe counts


@pytest.mark.parametrize(
    "words, message",
    [
        (["JOB=1:2", "same.log", "true"], "2 jobs would share one log, same.log"),
        (["JOB=3:2", "JOB.log", "true"], "job range JOB=3:2 is empty"),
        (["JOB=1:2", "JOB.log"], "usage:"),
        (["--max-jobs-run", "none", "a.log", "true"], "--max-jobs-run takes a whole number of at least 1, not 'none'"),
        (["--gpu"], "option --gpu needs a value"),
    ],
)
def test_wrong_calls_of_run_pl(words: list[str], message: str) -> None:
    done = run_pl(*words)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_the_jobs(tmp_path: Path, kind: signal.Signals) -> None:
    log = tmp_path / "a.log"
    process = subprocess.Popen(
        [UTILS / "run.pl", log, "bash", "-c", "sleep 300 & echo $!; wait"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )
    deadline = time.time() + 20
    while time.time() < deadline and not (log.exists() and len(log.read_text().splitlines()) > 3):
        time.sleep(0.05)
    sleeper = int(log.read_text().splitlines()[3])
    process.send_signal(kind)
    assert process.wait(20) == 128 + kind
    deadline = time.time() + 5
    while Path(f"/proc/{sleeper}/stat").exists() and _state(sleeper) != "Z" and time.time() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{sleeper}").exists() or _state(sleeper) == "Z"
    assert log.read_text().splitlines()[-1].startswith("# Ended (code ")


def _state(process: int) -> str:
    """State of a process, Z where it has ended but nobody has asked for its status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return "Z"


def test_stdout_pl_shows_the_log(tmp_path: Path) -> None:
    done = run(UTILS / "stdout.pl", "JOB=1:2", tmp_path / "a.JOB.log", "bash", "-c", "echo hello JOB; exit 3")
    assert done.returncode == 1
    assert sorted(done.stdout.splitlines()) == ["hello 1", "hello 2"]
    assert "hello 2" in (tmp_path / "a.2.log").read_text()
    assert "Ended (code 3)" in (tmp_path / "a.2.log").read_text()


@pytest.mark.parametrize("lines, parts", [(10, 3), (3, 3), (7, 1), (101, 16)])
def test_split_is_even_and_keeps_order(tmp_path: Path, lines: int, parts: int) -> None:
    content = [f"utt{i} path\u2028with odd\x0b characters {i}" for i in range(lines)]
    (tmp_path / "all.scp").write_text("\n".join(content), encoding="utf-8")  # no line end at the end
    outputs = [tmp_path / f"part.{i}.scp" for i in range(parts)]
    assert run(UTILS / "split_scp.pl", tmp_path / "all.scp", *outputs).returncode == 0
    pieces = [output.read_text(encoding="utf-8").split("\n")[:-1] for output in outputs]
    assert sum(pieces, []) == content
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    done = run(UTILS / "split_scp.pl", "-j", parts, parts - 1, tmp_path / "all.scp")
    assert done.stdout == outputs[-1].read_text(encoding="utf-8")


def test_split_refuses_more_parts_than_lines(tmp_path: Path) -> None:
    (tmp_path / "all.scp").write_text("a 1\nb 2\n")
    outputs = [tmp_path / f"{i}.scp" for i in range(3)]
    done = run(UTILS / "split_scp.pl", tmp_path / "all.scp", *outputs)
    assert done.returncode == 1
    assert "all.scp has 2 lines, too few for 3 parts" in done.stderr
    assert not any(output.exists() for output in outputs)


@pytest.mark.parametrize(
    "words, message",
    [(["none.scp", "out"], "cannot read none.scp"), (["one"], "usage:"), (["--utt2spk=x", "a", "b"], "usage:")],
)
def test_wrong_calls_of_split_scp(words: list[str], message: str) -> None:
    done = run(UTILS / "split_scp.pl", *words)
    assert done.returncode == 1
    assert message in done.stderr


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A shell script with some options."""
    path = tmp_path / "script.sh"
    path.write_text(
        "# What it does.\n"
        "nj=4          # number of jobs\n"
        "stage=-1      # first stage\n"
        "resample=false # convert\n"
        "tag=          # a name\n"
        "hidden=1\n"
        f'. "{UTILS}/parse_options.sh"\n'
        "set -eu\n"
        "later=5       # no option any more\n"
        'echo "${nj}|${stage}|${resample}|${tag}|$#|$*"\n'
    )
    return path


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], "4|-1|false||0|"),
        (["--nj", "8", "--stage", "-1"], "8|-1|false||0|"),
        (["--nj=8", "--tag=--a b=c", "--resample", "true"], "8|-1|true|--a b=c|0|"),
        (["--tag", "", "rest", "--nj", "8"], "4|-1|false||3|rest --nj 8"),
        (["--nj", "8", "--", "--nj"], "8|-1|false||1|--nj"),
    ],
)
def test_options_are_set(script: Path, words: list[str], expected: str) -> None:
    done = run("bash", script, *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{expected}\n", "")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--njobs", "3"], "unknown option --njobs"),
        (["--hidden", "3"], "unknown option --hidden"),
        (["--later", "3"], "unknown option --later"),
        (["--PATH", "3"], "unknown option --PATH"),
        (["--nj"], "option --nj needs a value"),
        (["--resample", "yes"], "option --resample takes true or false, not 'yes'"),
    ],
)
def test_wrong_options_stop_the_script(script: Path, words: list[str], message: str) -> None:
    done = run("bash", script, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr


def test_help_prints_options_with_the_values_in_effect(script: Path) -> None:
    done = run("bash", script, "--nj", "8", "--help")
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[1:] == [
        "What it does.",
        "--nj number of jobs [8]",
        "--stage first stage [-1]",
        "--resample convert [false]",
        "--tag a name []",
    ]
