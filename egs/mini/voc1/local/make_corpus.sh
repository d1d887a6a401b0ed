#!/usr/bin/env bash
# Makes the FLAC files of the bundled corpus from its metadata.csv. The recipe doesn't run this: the files are in the
# repository. It's here to show where they come from, and to make them again.
#
# Usage: local/make_corpus.sh [output folder, default: ../corpus beside this script's folder]
# Needs flite 2.2 (with its voice slt) and SoX 14.4.2 with FLAC; on Debian, as root: apt-get install flite sox
set -euo pipefail

corpus=$(cd "$(dirname "${BASH_SOURCE[0]}")/../corpus" && pwd)
output_dir=${1:-${corpus}}
fs=22050          # Hz, so that LJSpeech's feature settings apply; flite speaks at 16,000 Hz
gain_db=-6        # the voice is 6 dB louder than a reader of LJSpeech, and resampling must not clip
noise_rms=0.0005  # -66 dB of full scale, the background of a quiet room

for tool in flite sox; do
    command -v "${tool}" > /dev/null || { echo "make_corpus.sh: ${tool} is missing (apt-get install flite sox)" >&2; exit 1; }
done

work=$(mktemp -d)
trap 'rm -rf "${work}"' EXIT
mkdir -p "${output_dir}/flac"

# A synthesiser's pauses are exact zeros and its band above 8 kHz is empty. A density has no finite maximum there, so
# every clip gets its own stretch of one noise signal. SoX's white noise at volume v has an rms of 0.38 v (measured).
# -R: the same random numbers at each run; -D: no dither, which would be another noise.
total=300  # seconds; more than all clips together
volume=$(awk "BEGIN {print ${noise_rms} / 0.38}")
sox -R -D -n -r "${fs}" -c 1 -b 32 -e floating-point "${work}/noise.wav" synth "${total}" whitenoise vol "${volume}"

offset=0  # samples of noise used so far
while IFS='|' read -r utt _ normalised; do
    flite -voice slt -t "${normalised}" -o "${work}/spoken.wav"
    sox -D "${work}/spoken.wav" -r "${fs}" -b 32 -e floating-point "${work}/clean.wav" gain "${gain_db}" rate -v
    samples=$(soxi -s "${work}/clean.wav")
    sox "${work}/noise.wav" "${work}/part.wav" trim "${offset}s" "${samples}s"
    sox -D -m -v 1 "${work}/clean.wav" -v 1 "${work}/part.wav" -b 16 -C 8 --comment "" "${output_dir}/flac/${utt}.flac"
    offset=$((offset + samples))
done < "${corpus}/metadata.csv"
echo "make_corpus.sh: $((offset / fs)) seconds of speech in ${output_dir}/flac"
