#!/usr/bin/env bash
# All checks: ruff and shellcheck, pytest, all stages of the recipe. Makes the environment when it isn't there.
#
#   local/check.sh          these three, also after one failed; the status is 0 only if all passed
#   local/check.sh lint     only those named, of: lint unit recipe fuzz oldest wheels
#
# fuzz: 10,000 damaged files of all kinds are read, where the unit tests read some hundred.
# oldest: pytest with the oldest versions that setup.py allows, in an environment of their own (.venv.oldest, 6 GB).
# wheels: asks the package index whether every pin has a wheel for every Python that setup.py allows.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ "$*" = oldest ] || local/setup_env.sh
export PATH="${PWD}/.venv/bin:${PATH}"
unset PYTHONPATH # the package tested is the one here
# The tests' tensors are small: a second thread only gets in the way, fivefold on two busy cores.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" MKL_NUM_THREADS="${MKL_NUM_THREADS:-1}"

# Every shell script except in what the recipes and the environment made.
shell_files() {
    find . \( -path ./.git -o -path './.venv*' -o -path ./data -o -path './egs/*/*/data' -o -name dump -o -name exp \
        -o -name downloads \) -prune -o \( -name '*.sh' -o -path ./.ci/run \) -type f -print0
}

lint() {
    local status=0
    ruff check . || status=1
    shell_files | xargs -0 shellcheck --external-sources --source-path=SCRIPTDIR || status=1
    return "${status}"
}

# A process for each CPU, four at most (2.5 GB each); the tests of a file stay together, as they share what they made.
unit() {
    local cpus
    cpus=$(nproc)
    python -m pytest -q -n $((cpus < 4 ? cpus : 4)) --dist loadfile
}

recipe() { if [ -f tests/test_recipe.sh ]; then bash tests/test_recipe.sh; fi; }

fuzz() { FLOWAVENET_FUZZ="${FLOWAVENET_FUZZ:-10000}" python -m pytest -q tests/test_fuzz.py; }

oldest() {
    local/setup_env.sh --oldest || return 1
    PATH="${PWD}/.venv.oldest/bin:${PATH}" unit
}

wheels() { python local/wheels.py; }

failed=()
[ $# -gt 0 ] || set -- lint unit recipe
for check in "$@"; do
    case ${check} in
        lint | unit | recipe | fuzz | oldest | wheels) ;;
        *) echo "check.sh: unknown check '${check}', not one of lint, unit, recipe, fuzz, oldest, wheels" >&2 && exit 2 ;;
    esac
    echo "check.sh: ${check}"
    "${check}" || failed+=("${check}") # errexit is off inside: each check returns its status itself
done
[ ${#failed[@]} -eq 0 ] || { echo "check.sh: failed: ${failed[*]}" >&2 && exit 1; }
echo "check.sh: passed: $*"
