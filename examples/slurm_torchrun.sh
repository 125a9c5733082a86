#!/bin/bash
# A training on several nodes. Give the same command again after any break: it goes on after the last complete epoch.
#
#   sbatch --nodes=2 --gpus-per-node=4 examples/slurm_torchrun.sh --dataset_dir data --output_dir runs/nodes
#
# What follows the script are options of train.yaml; both folders are ones that all nodes share.
# A worker that dies is started again, with all others, from that epoch. After the loss of a node, the job is queued again,
# unless it has run for less than ten minutes (REFUSED_WITHIN, in seconds): then it was refused, and would be again.
#SBATCH --job-name=hftn-sr-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

processes=${SLURM_GPUS_ON_NODE:-1}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
configs=$(python -c 'from hftn_sr._bundle import BUNDLE; print([str(BUNDLE / "configs" / f"{name}.yaml") for name in ("train", "multi_gpu_train")])')
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # without it processes of torch 2.13 that start again may wait for each other in vain
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

code=0
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$processes" --max-restarts=3 \
  --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$head:${PORT:-29500}" \
  -m monai.bundle run training --config_file "$configs" --processes $((SLURM_JOB_NUM_NODES * processes)) "$@" || code=$?
# Slurm itself queues a job again when a node is lost, not when a process on it is.
[ "$code" -eq 0 ] || [ "$SECONDS" -lt "${REFUSED_WITHIN:-600}" ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
