#!/bin/bash
# A folder of cases, divided over the tasks of a Slurm job array. They share a folder of results and know nothing of each other.
#
#   sbatch --array=1-16 examples/slurm_array.sh patients/ results/ --model small
#   hftn-sr report --results results/ --cases patients/            # when all tasks are over
#
# A task that was killed or requeued goes on where it stopped. To do one part again: --array=3 and SHARD=3/16, as the array no longer tells
# how many parts there are: sbatch --array=3 --export=ALL,SHARD=3/16 examples/slurm_array.sh patients/ results/ --model small
#SBATCH --job-name=hftn-sr
#SBATCH --array=1-4
#SBATCH --cpus-per-task=4
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=hftn-sr_%A_%a.log
#SBATCH --open-mode=append
set -euo pipefail
cases=$1 results=$2
shift 2

code=0
hftn-sr super-resolve --cases "$cases" --output "$results" --shard "${SHARD:-slurm}" --threads "${SLURM_CPUS_PER_TASK:-1}" "$@" || code=$?
[ "$code" -eq 3 ] || exit "$code"  # 3: every case of this part was done before
