#!/usr/bin/env bash
# How jobs are started; sourced by run.sh, with cmd_backend taken from the environment when it is set there.
#
#   local    run.pl     this machine
#   stdout   stdout.pl  this machine, and the logs go to the screen as well
#   sge      queue.pl   Sun Grid Engine; options in conf/queue.conf
#   slurm    slurm.pl   Slurm; options in conf/slurm.conf
#   pbs      pbs.pl     PBS; options in conf/pbs.conf
#   ssh      ssh.pl     the machines named in .queue/machines
#
# The last four are Kaldi's: set KALDI_ROOT, and run.sh finds them. A job array is written JOB=1:n. How many CPUs a job
# asks for is run.sh's --num_threads; more for all jobs of a kind, such as --mem 8G or --time 12:00:00, goes in below.
cmd_backend=${cmd_backend:-local}

# _with_conf <script> <name>: the script with the recipe's conf/<name>, else with the one beside this file.
_with_conf() {
    local conf=conf/$2
    [ -e "${conf}" ] || conf=$(realpath --relative-to=. "$(dirname "${BASH_SOURCE[0]}")/conf/$2") # no spaces on the way
    echo "$1 --config ${conf}"
}

# train_cmd: data preparation and features; cuda_cmd: training, decoding on a GPU; decode_cmd: decoding on the CPU, scoring
case ${cmd_backend} in
    local)
        train_cmd=run.pl; cuda_cmd=run.pl; decode_cmd=run.pl ;;
    stdout)
        train_cmd=stdout.pl; cuda_cmd=stdout.pl; decode_cmd=stdout.pl ;;
    sge)
        train_cmd=$(_with_conf queue.pl queue.conf); cuda_cmd=${train_cmd}; decode_cmd=${train_cmd} ;;
    slurm)
        train_cmd=$(_with_conf slurm.pl slurm.conf); cuda_cmd=${train_cmd}; decode_cmd=${train_cmd} ;;
    pbs)
        train_cmd=$(_with_conf pbs.pl pbs.conf); cuda_cmd=${train_cmd}; decode_cmd=${train_cmd} ;;
    ssh)
        train_cmd=ssh.pl; cuda_cmd=ssh.pl; decode_cmd=ssh.pl ;;
    *)
        echo "cmd.sh: cmd_backend is '${cmd_backend}', not one of local, stdout, sge, slurm, pbs, ssh" >&2
        return 1 ;;
esac
unset -f _with_conf
export train_cmd cuda_cmd decode_cmd
