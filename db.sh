# Where corpora are; local/data.sh reads this file. "downloads" stands for: not on this machine yet, take the one in
# --download_dir, or download it. A variable of the environment and the option --db_root come before these lines.
# shellcheck shell=bash disable=SC2034
LJSPEECH=${LJSPEECH:-downloads}
JSUT=${JSUT:-downloads}
KERSTIN=${KERSTIN:-downloads}
