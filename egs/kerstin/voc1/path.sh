# The environment of jobs that a queue starts in this folder: Kaldi's scripts source ./path.sh. It is the top folder's.
# shellcheck shell=bash source=../../../path.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/path.sh"
