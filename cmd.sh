#!/usr/bin/env bash
# How jobs are started; sourced by run.sh, with cmd_backend taken from the environment when it is set there.
#
#   local    run.pl     this machine
#   stdout   stdout.pl  this machine, and the logs go to the screen as well
#   sge      queue.pl   Sun Grid Engine; options in conf/queue.conf
#   slurm    slurm.pl   Slurm; options in conf/slurm.conf
#   ssh      ssh.pl     the machines named in .queue/machines
#
# The last three are Kaldi's: set KALDI_ROOT, and run.sh finds them. A job array is written JOB=1:n.
cmd_backend=${cmd_backend:-local}

# train_cmd: data preparation and features; cuda_cmd: training, decoding on a GPU; decode_cmd: decoding on the CPU, scoring
case ${cmd_backend} in
    local)
        train_cmd=run.pl; cuda_cmd=run.pl; decode_cmd=run.pl ;;
    stdout)
        train_cmd=stdout.pl; cuda_cmd=stdout.pl; decode_cmd=stdout.pl ;;
    sge)
        train_cmd=queue.pl; cuda_cmd=queue.pl; decode_cmd=queue.pl ;;
    slurm)
        train_cmd=slurm.pl; cuda_cmd=slurm.pl; decode_cmd=slurm.pl ;;
    ssh)
        train_cmd=ssh.pl; cuda_cmd=ssh.pl; decode_cmd=ssh.pl ;;
    *)
        echo "cmd.sh: cmd_backend is '${cmd_backend}', not one of local, stdout, sge, slurm, ssh" >&2
        return 1 ;;
esac
export train_cmd cuda_cmd decode_cmd
