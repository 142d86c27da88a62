#!/bin/bash
# Runs launch.py on every host of a Cloud TPU slice, where JAX finds the others by itself:
#
#   experiments/batch/tpu_pod.sh NAME ZONE --config=experiments/resnet50.py:imagenet --workdir=/mnt/runs/resnet50
#
# The same command goes on with a run that was stopped. The slice is there, ~/cnnjax and the folder
# of --workdir on each host: docs/batch_jobs.md says how they get there.
set -eu

if [ "$#" -lt 3 ]; then
    sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
name=$1 zone=$2
shift 2

state=$(gcloud compute tpus tpu-vm describe "$name" --zone="$zone" --format='value(state)')
if [ "$state" != READY ]; then
    echo "The slice $name is $state, not READY: delete it, create it again, and repeat this." >&2
    exit 1
fi

# Each word as the shell of the host is to read it.
command="cd cnnjax && exec .venv/bin/python launch.py$(printf ' %q' "$@")"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$command"
