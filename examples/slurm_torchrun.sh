#!/bin/bash
# A training on several nodes. Give the same command again after any break: it goes on after the last complete epoch.
#
#   sbatch --nodes=2 --gpus-per-node=4 examples/slurm_torchrun.sh --dataset_dir data --output_dir runs/nodes
#
# What follows the script are options of train.yaml; both folders are ones that all nodes share.
# A worker that dies is started again, with all others, from that epoch. So is a node that comes back within an hour.
#SBATCH --job-name=hftn-sr-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
set -euo pipefail

processes=${SLURM_GPUS_ON_NODE:-1}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
configs=$(python -c 'from hftn_sr._bundle import BUNDLE; print([str(BUNDLE / "configs" / f"{name}.yaml") for name in ("train", "multi_gpu_train")])')
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1  # without it a node that comes back to torch 2.13 waits in vain
export OMP_NUM_THREADS=$((SLURM_CPUS_PER_TASK / processes))

srun --kill-on-bad-exit=0 torchrun --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$processes" --max-restarts=3 \
  --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$head:${PORT:-29500}" --rdzv-conf=join_timeout=3600 \
  -m monai.bundle run training --config_file "$configs" --processes $((SLURM_JOB_NUM_NODES * processes)) "$@"
