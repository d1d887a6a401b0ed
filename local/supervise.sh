#!/usr/bin/env bash
# To be sourced by run.sh, with its arguments: it goes on as a child in a process group of its own, and this process only
# waits for that. A shell alone would die of a signal and leave what it started running, or not notice it until that ends.
# On INT, TERM, HUP and USR1 the whole group is told to end (TERM), and awaited: a training finishes its iteration, saves
# and ends. The status is then 128 and the signal's number. run.sh itself is the child where RUN_SH_PARENT says so.

# Is anything alive in the group of ${supervised}? Zombies, which nobody may collect, don't count.
group_lives() {
    local file line fields
    for file in /proc/[0-9]*/stat; do
        { read -r line < "${file}"; } 2> /dev/null || continue
        read -r -a fields <<< "${line##*) }" # state, parent, group
        [ "${fields[2]}" = "${supervised}" ] && [ "${fields[0]}" != Z ] && return 0
    done
    return 1
}

# end_group <signal>
end_group() {
    trap '' INT TERM HUP USR1 PIPE # who read what this prints may be gone
    kill -TERM -- "-${supervised}" 2> /dev/null
    echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh) SIG$1: what is running is told to end" >&2
    while group_lives; do sleep 0.1; done
    exit $((128 + $(kill -l "$1")))
}

if [ "${RUN_SH_PARENT:-}" != "${PPID}" ]; then
    set -m # jobs are process groups
    RUN_SH_PARENT=$$ bash "$0" "$@" &
    supervised=$!
    set +m
    for name in INT TERM HUP USR1; do
        # shellcheck disable=SC2064  # the name of now
        trap "end_group ${name}" "${name}"
    done
    wait "${supervised}" && exit 0 || exit $?
fi
unset RUN_SH_PARENT
