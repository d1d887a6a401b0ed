#!/usr/bin/env bash
# Make <root>/.venv from requirements.txt and install this package into it (editable).
#
#   local/setup_env.sh                     with the first Python 3.10 to 3.14 of python3, python3.14, ..., python3.10
#   PYTHON=python3.10 local/setup_env.sh   with this one
#   local/setup_env.sh --check             does nothing; the status is 0 if the environment is complete, else 1
#   local/setup_env.sh --oldest            makes .venv.oldest, with the oldest versions that setup.py allows, by what
#                                          requirements-oldest.txt says; for local/check.sh oldest
#
# Does nothing either when the environment is complete and neither requirements.txt nor setup.py changed since. An
# interrupted install is continued by the next call; of several calls at the same time one works and the others wait.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${root}/.venv
wanted="3.10 to 3.14" pythons=(3.14 3.13 3.12 3.11 3.10)
requirements=("${root}/requirements.txt")
case $* in
    "" | --check) ;;
    --oldest)
        venv=${root}/.venv.oldest
        wanted="3.10 to 3.12" pythons=(3.10 3.11 3.12) # the oldest torch has no wheels for later ones
        requirements+=("${root}/requirements-oldest.txt") ;;
    *) echo "setup_env.sh: error: unknown argument: $*" >&2 && exit 2 ;;
esac
mark=${venv}/.complete # holds the fingerprint of what was installed; written last

# What a user's settings would add to, or take from, the environment made here.
unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

log() { echo "setup_env.sh: $*" >&2; }

# A checksum of the files and of the place: a virtual environment does not work once its folder was moved.
fingerprint() { { echo "${root}" && cat "${requirements[@]}" "${root}/setup.py"; } | cksum; }

is_complete() { [ -x "${venv}/bin/python" ] && [ -f "${mark}" ] && [ "$(<"${mark}")" = "$(fingerprint)" ]; }

# version_of <program>: 3.11, for example, or nothing if it does not run or has no pip to put into an environment.
version_of() { "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# is_suitable <version>: one of ${pythons[@]}
is_suitable() { [ -n "$1" ] && [[ " ${pythons[*]} " == *" $1 "* ]]; }

# Sets `python` to the first suitable Python, or stops with the versions found.
find_python() {
    local candidate version found=""
    for candidate in ${PYTHON:+"${PYTHON}"} python3 "${pythons[@]/#/python}"; do
        version=$(version_of "${candidate}")
        if is_suitable "${version}"; then
            # Not the link of a virtual environment, which may be the one that is made anew here.
            python=$("${candidate}" -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
            return
        fi
        found+=" ${candidate} (${version:-missing, or without its modules venv and ensurepip});"
    done
    log "error: Python ${wanted} is needed, with the modules venv and ensurepip (Debian: package python3-venv)."
    log "Found:${found%;}. Install one, or name it: PYTHON=/path/to/python3.12 local/setup_env.sh"
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
    if is_suitable "${version}" && [ "${version}" = "$(version_of "${PYTHON:-${venv}/bin/python}")" ] &&
        grep -qF "${venv}" "${venv}/bin/activate" && "${venv}/bin/python" -m pip --version >/dev/null 2>&1; then
        log "completing ${venv} (Python ${version})"
        return
    fi
    log "making ${venv} with Python $(version_of "${python}") (${python})"
    "${python}" -m venv --clear "${venv}"
}

# pip as the environment has it. Without build isolation source packages are built with the pinned tools; through their
# standard interface, since pip 25 warns of the other one.
pip_install() { "${venv}/bin/python" -m pip install --quiet --no-deps --no-build-isolation --use-pep517 "$@"; }

# The pins to be installed. Those of requirements-oldest.txt take the place of their like, and of all CUDA libraries.
all_pins() {
    local same
    if [ "${#requirements[@]}" -eq 1 ]; then
        grep -E '^[^#]+==' "${requirements[0]}"
    else
        same=$(sed -n 's/^\([A-Za-z0-9_.-]*\)==.*/\1/p' "${requirements[1]}" | paste -sd '|')
        grep -E '^[^#]+==' "${requirements[0]}" | grep -vE "^((nvidia|cuda)-|(${same})==)"
        grep -E '^[^#]+==' "${requirements[1]}"
    fi
}

# pins <name>...: their lines
pins() { for name in "$@"; do all_pins | grep "^${name}=="; done; }

install_all() {
    local work=${venv}/.install
    mkdir -p "${work}"
    log "[1/4] build tools"
    pins setuptools wheel Cython numpy >"${work}/build.txt"
    pip_install -r "${work}/build.txt"
    # The same module under the name of a package that an earlier version of this environment had.
    "${venv}/bin/python" -m pip uninstall --quiet --yes pyworld 2>/dev/null || true
    all_pins | grep -v '^pesq==' >"${work}/main.txt"
    log "[2/4] $(wc -l <"${work}/main.txt") pinned packages, about 5.4 GB, most of it torch with CUDA: takes some minutes"
    pip_install -r "${work}/main.txt"
    log "[3/4] pesq, built from source"
    pip_install "$(pins pesq)" >"${work}/pesq.log" 2>&1 ||
        log "warning: pesq could not be built (${work}/pesq.log), so PESQ will be missing from the scores; nothing else needs" \
            "it. With a C compiler and Python's headers (Debian: gcc, python3-dev) it is added by:" \
            "${venv}/bin/pip install --no-deps --no-build-isolation $(pins pesq)"
    log "[4/4] flowavenet_plugin"
    PYTHONWARNINGS=ignore pip_install -e "${root}" # setuptools warns of editable installs as such
}

if is_complete; then exit 0; fi
[ "$*" != --check ] || exit 1
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
