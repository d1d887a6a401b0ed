#!/usr/bin/env bash
# Make <root>/.venv from requirements.txt and install this package into it (editable).
#
#   local/setup_env.sh                     with the first Python 3.10-3.12 of python3, python3.12, python3.11, python3.10
#   PYTHON=python3.10 local/setup_env.sh   with this one
#   local/setup_env.sh --check             does nothing; the status is 0 if the environment is complete, else 1
#
# Does nothing either when the environment is complete and neither requirements.txt nor setup.py changed since. An
# interrupted install is continued by the next call; of several calls at the same time one works and the others wait.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${root}/.venv
mark=${venv}/.complete # holds the fingerprint of what was installed; written last

# What a user's settings would add to, or take from, the environment made here.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

log() { echo "setup_env.sh: $*" >&2; }

# A checksum of the two files and of the place: a virtual environment does not work once its folder was moved.
fingerprint() { { echo "${root}" && cat "${root}/requirements.txt" "${root}/setup.py"; } | cksum; }

is_complete() { [ -x "${venv}/bin/python" ] && [ -f "${mark}" ] && [ "$(<"${mark}")" = "$(fingerprint)" ]; }

# version_of <program>: 3.11, for example, or nothing if it does not run or has no pip to put into an environment.
version_of() { "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# Sets `python` to the first suitable Python, or stops with the versions found.
find_python() {
    local candidate version found=""
    for candidate in ${PYTHON:+"${PYTHON}"} python3 python3.12 python3.11 python3.10; do
        version=$(version_of "${candidate}")
        case ${version} in
            3.10 | 3.11 | 3.12)
                # Not the link of a virtual environment, which may be the one that is made anew here.
                python=$("${candidate}" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
                return ;;
            "") found+=" ${candidate} (missing, or without its modules venv and ensurepip);" ;;
            *) found+=" ${candidate} (${version});" ;;
        esac
    done
    log "error: Python 3.10, 3.11 or 3.12 is needed, with the modules venv and ensurepip (Debian: package python3-venv)."
    log "Found:${found%;}. Install one, or name it: PYTHON=/path/to/python3.11 local/setup_env.sh"
    exit 1
}

# One call at a time. The lock belongs to the open file, so it ends with this process and those it started, however
# they end. Python takes it, since not every system has the program flock.
take_lock() {
    exec 9>"${root}/.venv.lock"
    "${python}" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("setup_env.sh: waiting for another setup_env.sh to finish", file=sys.stderr, flush=True)
    fcntl.flock(9, fcntl.LOCK_EX)'
}

# An environment that an earlier call left, at this place and of the Python version wanted, is kept and completed.
make_venv() {
    local version
    version=$(version_of "${venv}/bin/python")
    if [[ ${version} =~ ^3\.1[012]$ ]] && [ "${version}" = "$(version_of "${PYTHON:-${venv}/bin/python}")" ] &&
        grep -qF "${venv}" "${venv}/bin/activate" && "${venv}/bin/python" -m pip --version >/dev/null 2>&1; then
        log "completing ${venv} (Python ${version})"
        return
    fi
    log "making ${venv} with Python $(version_of "${python}") (${python})"
    "${python}" -m venv --clear "${venv}"
}

# pip as the environment has it. Without build isolation source packages are built with the pinned tools.
pip_install() { "${venv}/bin/python" -m pip install --quiet --no-deps --no-build-isolation "$@"; }

# pins <name>...: their lines of requirements.txt
pins() { for name in "$@"; do grep "^${name}==" "${root}/requirements.txt"; done; }

install_all() {
    local work=${venv}/.install name
    mkdir -p "${work}"
    log "[1/4] build tools"
    pins setuptools wheel Cython numpy >"${work}/build.txt"
    pip_install -r "${work}/build.txt"
    grep -vE '^(pyworld|pesq)==' "${root}/requirements.txt" >"${work}/main.txt"
    log "[2/4] $(grep -c '==' "${work}/main.txt") pinned packages, about 5.4 GB, most of it torch with CUDA: takes some minutes"
    pip_install -r "${work}/main.txt"
    log "[3/4] pyworld and pesq, built from source"
    for name in pyworld pesq; do
        pip_install "$(pins "${name}")" >"${work}/${name}.log" 2>&1 ||
            log "warning: ${name} could not be built (${work}/${name}.log); only some scores and, for pyworld, ESPnet2's" \
                "text-to-speech tasks need it. With a C++ compiler at hand, try:" \
                ".venv/bin/pip install --no-deps --no-build-isolation $(pins "${name}")"
    done
    log "[4/4] flowavenet_plugin"
    PYTHONWARNINGS=ignore pip_install -e "${root}" # setuptools warns of editable installs as such
}

[ $# -eq 0 ] || [ "$*" = --check ] || { log "error: unknown argument: $*" && exit 2; }
if is_complete; then exit 0; fi
[ $# -eq 0 ] || exit 1
if [ -L "${venv}" ]; then # making it anew would empty the folder that it points to
    log "error: ${venv} is a link to $(readlink "${venv}"): remove it, or activate that environment instead"
    exit 1
fi
find_python
take_lock
if is_complete; then exit 0; fi # made by the one that was waited for
rm -f "${mark}"
make_venv
install_all
fingerprint >"${mark}.part"
mv "${mark}.part" "${mark}"
log "done: ${venv}"
