"""The settings of the queues, read as Kaldi's scripts read them, and what becomes of the jobs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import stub_cluster

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"slurm": "slurm.pl", "sge": "queue.pl", "pbs": "pbs.pl"}


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """Return a folder of a cluster's programs."""
    stub_cluster.make_cluster(tmp_path / "bin")
    return tmp_path / "bin"


def submit(cluster: Path, backend: str, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Submit as run.sh does, by the command that cmd.sh gives, in a folder."""
    folder = cluster.parent if folder is None else folder
    call = f'. "{ROOT}/cmd.sh" && ${{cuda_cmd}} "$@"'
    env = stub_cluster.environment(cluster, backend)
    command = ["bash", "-euc", call, "submit", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


NEEDS = {
    ("--name", "voc_x", "--gpu", "4", "--num_threads", "16"): dict(
        slurm="--job-name=voc_x --gres=gpu:4 --cpus-per-task=16",
        sge="-N voc_x, -l gpu=4, -pe smp 16",
        pbs="-N voc_x, -l ngpus=4, -l ncpus=16",
    ),
    ("--num_threads", "1"): dict(slurm="--cpus-per-task=1", sge="-cwd", pbs="-l ncpus=1"),
    (): dict(slurm="--cpus-per-task=1", sge="-cwd", pbs="-l ncpus=1"),
    ("--gpu", "0", "--num_threads", "1", "--num_nodes", "3"): dict(
        slurm="--nodes=3 --cpus-per-task=1 --ntasks-per-node=1", sge="-pe mpi 3", pbs="-l nodes=3, -l ncpus=1"
    ),
    ("--mem", "8G", "--time", "2:00:00"): dict(
        slurm="--mem=8G --time=2:00:00", sge="-l mem_free=8G, -l h_rt=2:00:00", pbs="-l mem=8G, -l walltime=2:00:00"
    ),
}


@pytest.mark.parametrize("backend", stub_cluster.BACKENDS)
@pytest.mark.parametrize("options", NEEDS, ids=lambda options: "".join(options) or "none")
def test_every_option_is_described(cluster: Path, backend: str, options: tuple[str, ...]) -> None:
    done = submit(cluster, backend, *options, "log/a.log", "echo", "two words")
    assert done.returncode == 0, done.stderr
    assert "\ntwo words\n" in (cluster.parent / "log/a.log").read_text()
    asked = (cluster / "asked").read_text()
    for need in re.split(", | (?=--)", NEEDS[options][backend]):
        assert need in asked, (need, asked)
    for word in ("gpu", "smp", "nodes", "mpi"):
        assert (word in asked) == (word in NEEDS[options][backend].replace("ntasks-per-node", "")), asked


@pytest.mark.parametrize("backend", stub_cluster.BACKENDS)
def test_without_its_settings_a_queue_refuses(cluster: Path, backend: str) -> None:
    words = [SCRIPTS[backend], "--name", "voc_x", "log/a.log", "true"]
    env = stub_cluster.environment(cluster, backend)
    done = subprocess.run(words, cwd=cluster.parent, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Command line option name not described in default config file" in done.stderr


@pytest.mark.parametrize("backend", stub_cluster.BACKENDS)
def test_a_recipes_own_settings_come_first(cluster: Path, backend: str) -> None:
    name = {"slurm": "slurm.conf", "sge": "queue.conf", "pbs": "pbs.conf"}[backend]
    text = (ROOT / "conf" / name).read_text()
    option = "--job-name=" if backend == "slurm" else "-N "
    (cluster.parent / "conf").mkdir()
    (cluster.parent / "conf" / name).write_text(text.replace(f"{option}$0", f"{option}mine_$0"))
    done = submit(cluster, backend, "--name", "x", "a.log", "true")
    assert done.returncode == 0, done.stderr
    assert f"{option}mine_x" in (cluster / "asked").read_text()


@pytest.mark.parametrize("backend", stub_cluster.BACKENDS)
def test_an_array_has_a_task_for_each_number_and_says_which_failed(cluster: Path, backend: str) -> None:
    call = ["JOB=1:3", "log/a.JOB.log", "bash", "-c", "echo job JOB; test JOB != 2"]
    done = submit(cluster, backend, *call)
    assert done.returncode == 1 and "1 / 3 failed, log is in log/a.2.log" in done.stderr, done.stderr
    assert "\njob 3\n" in (cluster.parent / "log/a.3.log").read_text()


@pytest.mark.parametrize("backend", stub_cluster.BACKENDS)
@pytest.mark.parametrize("recipe", ["jsut", "kerstin", "mini", "voice"])
def test_jobs_of_a_recipe_have_this_copy_of_the_package(
    cluster: Path, backend: str, recipe: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for name in ("flowavenet_plugin/__init__.py", "path.sh", "cmd.sh", f"egs/{recipe}/voc1/path.sh", "utils/run.pl"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "conf").symlink_to(ROOT / "conf")
    show = ["python3", "-c", "import flowavenet_plugin; print(flowavenet_plugin.__file__)"]
    done = submit(cluster, backend, f"{tmp_path}/a.log", *show, folder=copy / "egs" / recipe / "voc1")
    assert done.returncode == 0, done.stderr
    assert f"\n{copy}/flowavenet_plugin/__init__.py\n" in (tmp_path / "a.log").read_text()


def threads(processes: int, **variables: str) -> tuple[str, str]:
    """Return OMP_NUM_THREADS and PYTHONPATH of a process that job.sh starts."""
    env = {"PATH": os.environ["PATH"], **variables}
    show = 'echo "${OMP_NUM_THREADS:-free}|${PYTHONPATH}"'
    command = [str(ROOT / "utils/job.sh"), str(processes), "bash", "-c", show]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return tuple(done.stdout.strip().split("|"))


@pytest.mark.parametrize(
    "processes, variables, expected",
    [
        (1, {}, "free"),  # alone on a machine: what the libraries choose
        (1, dict(OMP_NUM_THREADS="3"), "3"),
        (1, dict(SLURM_CPUS_PER_TASK="1"), "1"),
        (4, dict(SLURM_CPUS_PER_TASK="1"), "1"),
        (1, dict(NSLOTS="1"), "1"),
        (1, dict(NSLOTS="3", NHOSTS="3"), "1"),
        (1, dict(PBS_JOBID="17", NCPUS="1"), "1"),
        (1, dict(PBS_JOBID="17", PBS_NUM_PPN="1"), "1"),
        (1, dict(NCPUS="1"), "free"),  # not in a job of PBS
        (1000, {}, "1"),
        (1, dict(SLURM_CPUS_PER_TASK="100000"), "all"),  # not more than this process may use
        (1, dict(SLURM_CPUS_PER_TASK="100000", OMP_NUM_THREADS="1"), "1"),
    ],
)
def test_a_job_has_the_threads_that_it_was_given(processes: int, variables: dict[str, str], expected: str) -> None:
    here = str(len(os.sched_getaffinity(0)))
    found, path = threads(processes, **variables)
    assert found == (here if expected == "all" else expected)
    assert path == str(ROOT)


def test_the_package_comes_first_and_once() -> None:
    assert threads(1, PYTHONPATH="/elsewhere")[1] == f"{ROOT}:/elsewhere"
    assert threads(1, PYTHONPATH=f"/elsewhere:{ROOT}")[1] == f"/elsewhere:{ROOT}"


def test_affinity_counts() -> None:
    """Two processes that may use one core have a thread each."""
    core = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, str(ROOT / "utils/job.sh"), "2", "bash", "-c", "echo ${OMP_NUM_THREADS}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize("name", ["SLURM_CPUS_PER_TASK", "NSLOTS"])
def test_run_pl_within_a_job_keeps_to_its_cpus(tmp_path: Path, name: str) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    script = f"touch {marks}/JOB; ls {marks} | wc -l; sleep 0.3; rm {marks}/JOB"
    command = [str(ROOT / "utils/run.pl"), "JOB=1:3", f"{tmp_path}/JOB.log", "bash", "-c", script]
    subprocess.run(command, env={**os.environ, name: "1"}, check=True)
    assert {(tmp_path / f"{job}.log").read_text().splitlines()[3] for job in (1, 2, 3)} == {"1"}


def test_slurms_srun_is_given_the_jobs_cpus() -> None:
    """Since Slurm 22.05 it gives its processes one CPU each unless this variable says more."""
    script = f'. "{ROOT}/path.sh" 2> /dev/null || true; echo "${{SRUN_CPUS_PER_TASK:-none}}"'
    for given, expected in ((dict(SLURM_CPUS_PER_TASK="3"), "3"), ({}, "none")):
        env = {"PATH": os.environ["PATH"], **given}
        done = subprocess.run(["bash", "-euc", script], env=env, capture_output=True, text=True, check=True)
        assert done.stdout == f"{expected}\n"
