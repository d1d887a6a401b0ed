#!/usr/bin/env bash
# Command-line options for shell scripts. To be sourced by a script that has set its options as variables,
# one per line, each with a comment:
#
#     nj=4   # number of parallel jobs
#     . utils/parse_options.sh
#
# `--nj 8` or `--nj=8` then sets nj, and `--help` prints every such line with the value it has at that point.
# An option without a variable, an option without a value, and anything but true or false for a variable that
# holds one of these, stop the script. What is left in "$@" are the words that are no options.

# The lines of the calling script up to the one that sources this file.
_option_lines=$(sed '/parse_options\.sh/q' "${BASH_SOURCE[1]}")

# Prints the options with their values in effect; whole-line comments become headings.
_print_options() {
    local line name
    echo "Usage: ${0} [--option value] ..."
    while IFS= read -r line; do
        if [[ ${line} =~ ^([a-z][a-z0-9_]*)=.*[[:space:]]\#[[:space:]](.*)$ ]]; then
            name=${BASH_REMATCH[1]}
            printf '  --%-17s %s [%s]\n' "${name}" "${BASH_REMATCH[2]}" "${!name}"
        elif [[ ${line} =~ ^\#[[:space:]](.*)$ && ${line} != *parse_options.sh* ]]; then
            printf '%s\n' "${BASH_REMATCH[1]}"
        fi
    done <<< "${_option_lines}"
}

while [ $# -gt 0 ]; do
    case ${1} in
        --help | -h) _print_options; exit 0 ;;
        --) shift; break ;;
        --*=*) _name=${1%%=*}; _value=${1#*=}; _words=1 ;;
        --*)
            _name=${1}; _words=2
            if [ $# -lt 2 ]; then
                echo "${0}: option ${1} needs a value (see ${0} --help)" >&2; exit 1
            fi
            _value=${2} ;;
        *) break ;;
    esac
    _name=${_name#--}; _name=${_name//-/_}
    if ! [[ ${_name} =~ ^[a-z][a-z0-9_]*$ ]] || ! grep -q "^${_name}=.*[[:space:]]#[[:space:]]" <<< "${_option_lines}"; then
        echo "${0}: unknown option --${_name} (see ${0} --help)" >&2; exit 1
    fi
    if [[ ${!_name} =~ ^(true|false)$ && ! ${_value} =~ ^(true|false)$ ]]; then
        echo "${0}: option --${_name} takes true or false, not '${_value}'" >&2; exit 1
    fi
    printf -v "${_name}" '%s' "${_value}"
    shift "${_words}"
done
unset _name _value _words _option_lines
true
