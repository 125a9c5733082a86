"""Runs of the training workflow in processes of their own, forked from one that has loaded MONAI already: that spares seconds for each."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import shlex
import socket
import sys
from pathlib import Path

import itk
import torch
from monai.bundle import run

import hftn_sr
from hftn_sr.cli import main

# Parts of ITK load themselves at their first use, which takes seconds: once here rather than in each fork.
ITK = (itk.AffineTransform, itk.BSplineInterpolateImageFunction, itk.ResampleImageFilter, itk.image_from_array, itk.matrix_from_array)
CONFIGS = Path(hftn_sr.__file__).parents[1] / "configs"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "training_process",
        "torch._dynamo",
        "monai.engines",
        "hftn_sr.training.handlers",
        "hftn_sr.training.transforms",
        "torch.utils.tensorboard",
    ]
)


def train(*overlays, log, processes=1, **options):
    """Run train.yaml with overlays, names of configs/ or paths; gives the exit codes, negative for a signal. The output goes to `log`s."""
    configs = [str(CONFIGS / f"{name}.yaml") if isinstance(name, str) else str(name) for name in ("train", *overlays)]
    options = {name: str(option) if isinstance(option, Path) else option for name, option in options.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    places = [{"OMP_NUM_THREADS": "1", **together, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    logs = [log.with_name(f"{log.name}.{rank}") for rank in range(processes)]
    children = [FORKS.Process(target=_train, args=(configs, options, place, path)) for place, path in zip(places, logs, strict=True)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=300)
        child.kill()
    return [child.exitcode for child in children]


def _train(configs, options, environment, log):
    os.environ.update(environment)
    with log.open("w") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
        try:
            run("training", config_file=configs, threads=1, **options)
        except Exception:
            sys.excepthook(*sys.exc_info())  # as the interpreter does; a process of multiprocessing prints a traceback itself
            raise


def perform(command, folder, log):
    """Run a command line of the documentation, or Python code, in `folder`; gives the exit code."""
    child = FORKS.Process(target=_perform, args=(command, folder, log))
    child.start()
    child.join(timeout=300)
    child.kill()
    return child.exitcode


def _perform(command, folder, log):
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    with log.open("w") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
        if not command.startswith(("python ", "hftn-sr ")):
            exec(command, {"__name__": "__main__"})
            return
        program, *words = shlex.split(command)
        if program == "hftn-sr":
            sys.argv = [program, *words]
            main()
        elif words[0] == "-c":
            exec(words[1], {"__name__": "__main__"})
        else:
            sys.argv = words[1:]
            try:
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            except Exception:
                sys.excepthook(*sys.exc_info())
                raise
