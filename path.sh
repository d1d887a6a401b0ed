# Environment of the recipes; to be sourced, e.g. by run.sh: helper programs in PATH, and a Python with the packages needed.
#
# That is the Python that is active already (the first word of $python, else python3) if it has them, else .venv. If that
# isn't there either, this says what is missing and how to make it, and returns 1.
# shellcheck shell=bash

# Prints "missing: <packages>" if this Python lacks some, else where flowavenet_plugin is imported from, else nothing.
# Packages are looked up, not imported; the current folder doesn't count.
_path_sh_look() {
    "$1" - <<'PYTHON' 2>/dev/null || echo "missing: a working '$1'"
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path = [folder for folder in sys.path if folder not in ("", ".")]
missing = [name for name in ("espnet2", "torch", "librosa", "kaldiio", "soundfile") if find_spec(name) is None]
package = find_spec("flowavenet_plugin")
if missing:
    print("missing:", *missing)
elif package and package.origin:
    print(Path(package.origin).resolve().parent.parent)
PYTHON
}

_path_sh() {
    local root interpreter found
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || return 1

    export LC_ALL=C # one sort order for all programs that read or write lists
    PATH="${root}/utils:${PATH}"
    if [ -n "${KALDI_ROOT:-}" ]; then # Kaldi's own programs of the same names know more queues
        PATH="${KALDI_ROOT}/egs/wsj/s5/utils:${KALDI_ROOT}/egs/wsj/s5/utils/parallel:${PATH}"
    fi
    export PATH
    # Slurm's srun gives its processes the CPUs of the job only if it is told so.
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK}"; fi

    interpreter=${python:-python3}
    interpreter=${interpreter%% *}
    found=$(_path_sh_look "${interpreter}")
    if [[ ${found} == missing:* && ${interpreter} != */* ]] && "${root}/local/setup_env.sh" --check; then
        # shellcheck source=/dev/null
        . "${root}/.venv/bin/activate" || return 1
        found=$(_path_sh_look "${interpreter}")
    fi
    if [[ ${found} == missing:* ]]; then
        echo "path.sh: ${interpreter} ($(command -v "${interpreter}" || echo "not found")): ${found}" >&2
        echo "path.sh: make a virtual environment with all that is needed by: ${root}/local/setup_env.sh" >&2
        return 1
    fi
    if [ "${found}" != "${root}" ]; then # not installed, or from another copy of the repository
        export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"
    fi
}

_path_sh || { unset -f _path_sh _path_sh_look; return 1; }
unset -f _path_sh _path_sh_look
# With this srun ends the whole job when one process dies, and names it.
export SLURM_KILL_BAD_EXIT="${SLURM_KILL_BAD_EXIT:-1}"
