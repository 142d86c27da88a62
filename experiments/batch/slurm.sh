#!/bin/bash
# A run of one node or of many that goes on by itself when it is preempted or its time is over:
#
#   sbatch --gpus-per-node=1 --cpus-per-task=16 experiments/batch/slurm.sh --config=…
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=64 experiments/batch/slurm.sh --config=…
#
# What follows the file's name goes to launch.py; what stands before it wins over the lines below.
# One task a node drives all of its GPUs, and has one core unless told. See docs/batch_jobs.md.

#SBATCH --job-name=cnnjax
#SBATCH --ntasks-per-node=1
#SBATCH --time=4:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# Two minutes before the end of its time, to all tasks: enough to finish a step and to save.
#SBATCH --signal=USR1@120

# A preemption signals this shell, too, whose end would be that of the tasks.
trap : TERM USR1

# The cores are said again: since 22.05 srun does not take them over from sbatch.
srun --kill-on-bad-exit=0 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \
    python launch.py "$@"
code=$?

# 75: stopped and saved. Not if somebody cancelled the job, nor if SLURM itself has requeued it. A
# controller that does not answer, where many jobs are preempted at once, is asked again.
if [ "$code" -eq 75 ]; then
    for seconds in 1 5 20 20 0; do
        state=$(squeue --noheader --job="$SLURM_JOB_ID" --format=%T) &&
            { [ "$state" != RUNNING ] || scontrol requeue "$SLURM_JOB_ID"; } && break
        sleep "$seconds"
    done
fi
exit "$code"
