"""Start Dask workers through the queue of a cluster, and run super-resolve on them.

python examples/dask_cluster.py slurm --jobs 8 -- --cases patients/ --output results/

What follows `--` are options of super-resolve. Workers come and go with their jobs: cases of a lost one are run again by another, a new job
takes the place of one that has ended, and the command goes on when it is given again. `local` starts the jobs as processes of this machine,
to try the script.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

import dask
import dask_jobqueue
import dask_jobqueue.local

# What Dask does beside the cases, more rarely: idle, a scheduler and two workers otherwise take a tenth of a core.
SPARING = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "1s",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
QUEUES = {
    "slurm": dask_jobqueue.SLURMCluster,
    "pbs": dask_jobqueue.PBSCluster,
    "sge": dask_jobqueue.SGECluster,
    "lsf": dask_jobqueue.LSFCluster,
    "local": dask_jobqueue.local.LocalCluster,
}


def main() -> int:
    """Run the command on the workers; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", choices=QUEUES)
    parser.add_argument("--jobs", type=int, default=4, help="jobs of the queue, with one worker each")
    parser.add_argument("--cores", type=int, default=4, help="CPU threads of a job")
    parser.add_argument("--memory", default="8GB", help="memory of a job: what the largest case needs")
    parser.add_argument("--walltime", default="04:00:00", help="longest time of a job")
    parser.add_argument("options", nargs="+", help="options of hftn-sr super-resolve, after --")
    chosen = parser.parse_args()
    for name, value in SPARING.items():
        os.environ.setdefault(name, value)
    dask.config.refresh()  # of the scheduler, which is in this process
    settings = {"OMP_NUM_THREADS": chosen.cores, **{name: os.environ[name] for name in SPARING}}
    of_queue = {"walltime": chosen.walltime, "job_script_prologue": [f"export {name}={value}" for name, value in settings.items()]}
    if chosen.queue == "slurm":
        of_queue["job_cpu"] = chosen.cores
    if chosen.queue == "local":  # no script, and so nothing before the worker, which has the environment of this process
        of_queue = {}
    with QUEUES[chosen.queue](
        cores=1,  # cases at a time in a worker
        processes=1,
        memory=chosen.memory,
        **of_queue,
    ) as cluster:
        command = ["super-resolve", "--scheduler", cluster.scheduler_address, "--threads", str(chosen.cores), *chosen.options]
        client = subprocess.Popen([sys.executable, "-m", "hftn_sr.cli", *command])
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C: the client has heard it too, and ends with a summary
        signal.signal(signal.SIGTERM, lambda *_: client.terminate())
        while True:
            cluster.scale(jobs=chosen.jobs)  # of itself, Dask starts no job in the place of one that has ended
            try:
                return client.wait(timeout=30)
            except subprocess.TimeoutExpired:
                continue


if __name__ == "__main__":
    sys.exit(main())
