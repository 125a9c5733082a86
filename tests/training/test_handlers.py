import io
import logging
import random
import re
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import matplotlib.image
import numpy as np
import pytest
import torch
from filelock import FileLock
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import Dataset
from monai.engines import Evaluator
from monai.transforms import RandFlipd
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

import hftn_sr
from hftn_sr.errors import Fault
from hftn_sr.networks import HFTNSR
from hftn_sr.networks.weights import load_model, load_weights
from hftn_sr.scoring.metrics import psnr
from hftn_sr.training.handlers import (
    CaseProgress,
    Checkpoint,
    Curves,
    Progress,
    ReleaseCase,
    ReseedEveryEpoch,
    StopAtNonFiniteLoss,
    Validation,
    VolumeScore,
    preview,
)
from hftn_sr.training.handlers.state import LOCK, read_checkpoint

CONFIGS = Path(hftn_sr.__file__).parents[1] / "configs"
TINY = {"scale": 2, "channels": 16, "stages": 1, "blocks": 1, "embedding": 8}


def test_the_gain_is_the_mean_over_volumes_of_prediction_against_zero_filling():
    generator = torch.Generator().manual_seed(0)
    label, pred = (torch.rand(2, 1, 8, 8, 3, generator=generator) for _ in range(2))
    image = torch.rand(2, 3, 8, 8, 3, generator=generator)
    metric = VolumeScore("psnr", gain=True)
    metric.update((pred, label, image))
    by_hand = [psnr(pred[i, 0], label[i, 0]) - psnr(image[i, 0], label[i, 0]) for i in (0, 1)]
    assert metric.compute() == pytest.approx(np.mean(by_hand))
    metric.reset()
    metric.update((pred[:1], label[:1], image[:1]))
    assert metric.compute() == pytest.approx(by_hand[0])


def test_an_epoch_draws_the_same_whatever_came_before():
    dataset = Dataset([{"x": torch.arange(4.0)[None]}] * 8, RandFlipd(keys="x", prob=0.5, spatial_axis=0))
    engine = SimpleNamespace(state=SimpleNamespace(epoch=3))
    draws = []
    for _ in range(2):
        torch.rand(5), np.random.rand(5), random.random()
        ReseedEveryEpoch(seed=1, dataset=dataset)(engine)
        draws.append([[float(item["x"][0, 0]) for item in dataset], torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()])
    assert draws[0] == draws[1]
    engine.state.epoch = 4
    ReseedEveryEpoch(seed=1, dataset=dataset)(engine)
    assert torch.rand(3).tolist() != draws[0][1]


def test_processes_draw_unlike_data_and_the_first_what_a_single_one_draws(monkeypatch):
    engine = SimpleNamespace(state=SimpleNamespace(epoch=3))
    draws = []
    for rank in (None, 0, 1, 2):
        if rank is not None:
            monkeypatch.setattr("ignite.distributed.get_rank", lambda rank=rank: rank)
        ReseedEveryEpoch(seed=1, dataset=[])(engine)
        draws.append(torch.rand(1).item())
    assert draws[0] == draws[1]
    assert len(set(draws[1:])) == 3


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_cases():
    engine = SimpleNamespace(state=SimpleNamespace(epoch=2, iteration=7, output={"loss": float("nan")}, batch={"case": ["b", "a", "b"]}))
    with pytest.raises(Fault, match=r"training: loss nan in epoch 2, iteration 7, cases a, b\. Fix: .*lower --learning_rate"):
        StopAtNonFiniteLoss()(engine)
    engine.state.output["loss"] = 0.5
    StopAtNonFiniteLoss()(engine)


EVEN = partial(StepLR, step_size=1)


def run_of(folder, network, scores, scheduled=EVEN, bias=float, wrap=lambda network: network, **record):
    """An engine of as many epochs as there are scores, each validated with the next score; it leaves `bias` in the network."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    scheduler = scheduled(optimizer)
    evaluator = SimpleNamespace(state=SimpleNamespace(metrics={}, key_metric_name="gain", epoch=0))
    handler = Checkpoint(folder, wrap(network), optimizer, scheduler, evaluator, {"seed": 5, **record})

    def step(engine, _batch):
        network.output.bias.data.fill_(bias(engine.state.epoch))
        optimizer.step()
        evaluator.state.metrics["gain"], evaluator.state.epoch = scores[engine.state.epoch - 1], engine.state.epoch

    engine = Engine(step)
    handler.attach(engine)
    engine.run([0], max_epochs=len(scores))
    return engine


def test_the_best_weights_and_the_latest_state_are_kept_and_a_run_goes_on_from_them(tmp_path):
    run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.3, 0.2])
    best = load_model(str(tmp_path / "best.safetensors"), 2)
    assert {name: best.record[name] for name in ("seed", "epoch", "steps", "gain")} == {"seed": 5, "epoch": 2, "steps": 2, "gain": 0.3}
    assert float(best.network.output.bias[0]) == 2
    resumed = HFTNSR(**TINY)
    engine = run_of(tmp_path, resumed, [9.0, 9.0, 9.0, 0.25])
    assert engine.state.iteration == 4  # three epochs were not repeated
    assert float(resumed.output.bias[0]) == 4
    assert load_model(str(tmp_path / "best.safetensors"), 2).record["gain"] == 0.3  # 0.25 is worse than before the break


@pytest.mark.parametrize(
    ("scale", "record", "finding"),
    [
        (4, {}, "network.scale 2, now 4"),
        (2, {"seed": 6}, "seed 5, now 6"),
        (2, {"start": {"sha256": "b"}}, "other initial weights"),
        (2, {"start": None}, "other initial weights"),
        (2, {"training": ["c"]}, "training cases of which none is listed now"),
        (2, {"training": ["b", "c"], "validation": ["a"]}, "the training case a, which is now used for validation"),
    ],
)
def test_another_run_in_the_folder_is_not_gone_on_with(tmp_path, capsys, scale, record, finding):
    kept = {"start": {"sha256": "a"}, "training": ["a", "b"]}
    run_of(tmp_path, HFTNSR(**TINY), [0.1], **kept)
    before = (tmp_path / "latest.pt").read_bytes()
    with pytest.raises(SystemExit) as ended:
        run_of(tmp_path, HFTNSR(**{**TINY, "scale": scale}), [0.1, 0.2], **{**kept, **record})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"^ERROR .*latest\.pt: is of a run begun with .*{finding}.*name another --output_dir", line)
    assert ended.value.code == 9
    assert (tmp_path / "latest.pt").read_bytes() == before
    FileLock(tmp_path / LOCK).acquire(timeout=0).lock.release()  # others are let in


def test_a_run_may_go_on_with_more_cases_and_names_all_that_it_has_seen(tmp_path):
    run_of(tmp_path, HFTNSR(**TINY), [0.1], training=["a", "b"], validation=["c"])
    run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.05], training=["b", "d"], validation=["e"])  # the score before was of another volume
    record = load_model(str(tmp_path / "best.safetensors"), 2).record
    assert (record["training"], record["validation"]) == (["a", "b", "d"], ["e"])


class Own(torch.nn.Module):
    """A network that this package does not know."""

    def __init__(self, channels):
        super().__init__()
        self.channels, self.output = channels, torch.nn.Conv2d(3, channels, 1)


def test_a_network_of_the_user_s_own_is_trained_and_its_weights_fit_it_again(tmp_path):
    run_of(tmp_path, Own(2), [0.1])
    assert run_of(tmp_path, Own(2), [0.1, 0.2]).state.iteration == 2
    torch.testing.assert_close(load_weights(Own(2), tmp_path / "best.safetensors").output.bias, torch.tensor([2.0, 2.0]))
    with pytest.raises(Fault, match=r"best\.safetensors: holds a network '.*Own', which this version does not have"):
        load_model(str(tmp_path / "best.safetensors"), 2)


def test_a_network_of_the_user_s_own_goes_on_only_with_the_same_options(tmp_path, capsys):
    run_of(tmp_path, Own(2), [0.1])
    with pytest.raises(SystemExit):
        run_of(tmp_path, Own(3), [0.1, 0.2])
    assert "network.channels 2, now 3" in capsys.readouterr().err


@pytest.mark.parametrize(("epochs", "validated"), [(2, [2]), (5, [3, 5]), (6, [3, 6])])
def test_the_last_epoch_is_validated_whatever_the_interval(epochs, validated):
    at, engine = [], Engine(lambda *_: None)
    evaluator = MagicMock(spec=Evaluator)
    evaluator.run.side_effect = lambda epoch: at.append(epoch)
    Validation(evaluator, 3).attach(engine)
    engine.run([0], max_epochs=epochs)
    assert at == validated


def test_a_run_whose_schedule_would_end_elsewhere_is_not_gone_on_with(tmp_path, capsys):
    run_of(tmp_path, HFTNSR(**TINY), [0.1], partial(CosineAnnealingLR, T_max=3))
    run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2], partial(CosineAnnealingLR, T_max=3))
    with pytest.raises(SystemExit):
        run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2, 0.3], partial(CosineAnnealingLR, T_max=4))
    assert "lr_scheduler.T_max 3, now 4" in capsys.readouterr().err


@pytest.mark.parametrize(("scores", "record", "options"), [([0.1, 0.2], {}, {}), ([0.1], {"seed": 6}, {}), ([0.1], {}, {"channels": 32})])
def test_weights_whose_state_is_gone_are_not_replaced_by_a_new_run(tmp_path, capsys, scores, record, options):
    run_of(tmp_path, HFTNSR(**{**TINY, **options}), scores, **record)
    (tmp_path / "latest.pt").unlink()
    before = (tmp_path / "best.safetensors").read_bytes()
    with pytest.raises(SystemExit) as ended:
        run_of(tmp_path, HFTNSR(**TINY), [0.3])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"^ERROR .*best\.safetensors: weights of an earlier training.*move it away .* or name another --output_dir", line)
    assert ended.value.code == 9
    assert (tmp_path / "best.safetensors").read_bytes() == before
    assert not (tmp_path / "latest.pt").exists()


def test_a_run_killed_between_its_first_two_files_begins_again(tmp_path):
    run_of(tmp_path, HFTNSR(**TINY), [0.1])
    (tmp_path / "latest.pt").unlink()
    assert run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2]).state.iteration == 2
    assert load_model(str(tmp_path / "best.safetensors"), 2).record["epoch"] == 2


def test_two_runs_do_not_write_into_one_folder_at_a_time(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hftn_sr.training.handlers.state.PATIENCE", 0.1)
    hold = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / LOCK)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(SystemExit) as ended:
                run_of(tmp_path, HFTNSR(**TINY), [0.1])
        finally:
            other.kill()
    assert ended.value.code == 9
    assert f"ERROR {tmp_path}: another training is writing into this folder" in capsys.readouterr().err
    assert not (tmp_path / "latest.pt").exists()
    run_of(tmp_path, HFTNSR(**TINY), [0.1])  # the lock died with its process
    assert (tmp_path / "latest.pt").exists()


def test_a_file_system_without_locks_is_warned_of_and_trained_on(tmp_path, monkeypatch, caplog):
    def no_locks(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", no_locks)
    with caplog.at_level(logging.WARNING):
        run_of(tmp_path, HFTNSR(**TINY), [0.1])
    assert f"{tmp_path}: cannot be locked" in caplog.text
    assert (tmp_path / "latest.pt").exists()


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_trained(tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        run_of(tmp_path / "file" / "run", HFTNSR(**TINY), [0.1])
    assert ended.value.code == 9
    assert re.search(r"^ERROR .*run: nothing can be written here .* Fix: name another --output_dir\.$", capsys.readouterr().err.strip())


def test_weights_that_are_no_longer_finite_leave_the_files_as_they_were(tmp_path):
    run_of(tmp_path, HFTNSR(**TINY), [0.1])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Fault, match=r"not finite after epoch 2, nothing was saved\. Fix: .*lower --learning_rate") as failed:
        run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2], bias=lambda epoch: float("nan"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2])  # though the failed run, which `failed` keeps alive, still holds the lock
    assert failed.tb and load_model(str(tmp_path / "best.safetensors"), 2).record["epoch"] == 2


def test_an_empty_output_dir_is_not_the_current_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run_of("", HFTNSR(**TINY), [0.1])
    assert (ended.value.code, list(tmp_path.iterdir())) == (2, [])
    assert "ERROR --output_dir: no folder is named. Fix: --output_dir runs/mine." in capsys.readouterr().err


def test_a_run_that_is_over_says_that_nothing_is_left_to_train(tmp_path, caplog):
    run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2])
    with caplog.at_level(logging.WARNING):
        assert run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2]).state.iteration == 2
    assert f"{tmp_path / 'latest.pt'}: all 2 epochs are done, nothing is left to train" in caplog.text


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    run_of(tmp_path, HFTNSR(**TINY), [0.1])
    before = (tmp_path / "latest.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="no space left on the disk"):
        run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2])
    assert (tmp_path / "latest.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "best.safetensors", "latest.pt"]


def test_a_checkpoint_of_a_network_wrapped_for_several_processes_fits_the_bare_network(tmp_path, monkeypatch):
    monkeypatch.setattr(DistributedDataParallel, "__init__", lambda self, module: torch.nn.Module.__init__(self))
    network = HFTNSR(**TINY)

    def wrap(bare):
        wrapped = DistributedDataParallel(bare)
        wrapped.module = bare
        return wrapped

    run_of(tmp_path, network, [0.1], wrap=wrap)
    assert read_checkpoint(tmp_path / "latest.pt")["network"].keys() == network.state_dict().keys()
    assert run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2]).state.iteration == 2  # one process goes on from it


def progress_of(console, caplog, monkeypatch, interval=60.0, resumed_from=0):
    """What a run of two epochs of three steps logs, 20 seconds a step."""
    clock = [0.0]
    monkeypatch.setattr("hftn_sr.training.handlers.display.time.monotonic", lambda: clock[0])
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.25)

    def step(engine, _):
        clock[0] += 20
        return {"loss": torch.tensor(float(engine.state.iteration), requires_grad=True)}

    engine = Engine(step)
    Progress(optimizer, console, interval).attach(engine)
    engine.state.epoch, engine.state.iteration, engine.state.max_epochs, engine.state.epoch_length = resumed_from, 3 * resumed_from, 2, 3
    with caplog.at_level(logging.INFO):
        engine.run([0, 0, 0])
    return [record.message for record in caplog.records]


STARTED = "starting at epoch 1/2, 3 steps per epoch, 6 in all"
EPOCHS = [f"epoch {epoch}/2: mean loss {loss}, learning rate 2.50e-01, left {left}" for epoch, loss, left in (
    (1, "2.00000", "0:01:00"), (2, "5.00000", "0:00:00")
)]  # fmt: skip


def test_a_run_says_that_it_starts_and_each_epoch_has_a_line_with_the_mean_loss_and_the_time_left(caplog, monkeypatch):
    stream = io.StringIO()
    lines = progress_of(Console(file=stream, force_terminal=False), caplog, monkeypatch)
    assert [line for line in lines if "Engine" not in line and "Complete" not in line] == [STARTED, *EPOCHS]
    assert not any("resuming" in line for line in lines)
    assert stream.getvalue() == ""  # no bar where nobody watches


def test_in_a_log_file_a_long_epoch_says_where_it_is_at_plain_intervals(caplog, monkeypatch):
    lines = progress_of(Console(file=io.StringIO(), force_terminal=False), caplog, monkeypatch, interval=40.0)
    assert [line for line in lines if "step " in line] == [
        "epoch 1/2, step 2/3: loss 1.50000, left 0:01:20",
        "epoch 2/2, step 2/3: loss 4.50000, left 0:00:20",
    ]


def test_a_resumed_run_says_where_it_goes_on(caplog, monkeypatch):
    lines = progress_of(Console(file=io.StringIO(), force_terminal=False), caplog, monkeypatch, resumed_from=1)
    assert "going on at epoch 2/2, 3 steps per epoch, 6 in all" in lines
    assert EPOCHS[1] in lines and not any("starting" in line for line in lines)


@pytest.mark.parametrize("cases", [["one", "two", "three"], [SimpleNamespace(name=name) for name in ("one", "two", "three")]])
def test_each_case_that_is_done_has_a_line_with_its_name_and_the_time_left(cases, caplog, monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("hftn_sr.training.handlers.display.time.monotonic", lambda: float(next(clock) * 60))
    engine = Engine(lambda *_: None)
    CaseProgress().attach(engine)
    with caplog.at_level(logging.INFO):
        engine.run([{"case": [case] if isinstance(case, str) else case} for case in cases])
    assert [record.message for record in caplog.records if "left" in record.message] == [
        "case 1/3 done, one, left 0:02:00",
        "case 2/3 done, two, left 0:01:00",
        "case 3/3 done, three, left 0:00:00",
    ]


@pytest.mark.parametrize(("released", "alive"), [(False, 1), (True, 0)])
def test_a_released_case_is_gone_before_the_next_is_read(released, alive):
    volumes = []

    class Cases:
        def __len__(self):
            return 3

        def __iter__(self):
            for _ in range(3):
                assert sum(volume() is not None for volume in volumes) == (alive if volumes else 0)
                volume = torch.zeros(3)
                volumes.append(weakref.ref(volume))
                yield {"image": volume}
                del volume

    def doubled(engine, batch):
        return {"pred": 2 * batch["image"], **batch}

    engine, seen = Engine(doubled), []
    if released:
        shipped = ConfigParser.load_config_file(CONFIGS / "inference.yaml")["handlers"]
        assert f"hftn_sr.training.handlers.{ReleaseCase.__name__}" in [each["_target_"] for each in shipped]
        ReleaseCase().attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append(float(engine.state.output["pred"].sum())))
    engine.run(Cases())
    assert len(volumes) == len(seen) == 3


def test_on_a_terminal_a_bar_shows_epoch_loss_and_steps_and_goes_away(caplog, monkeypatch):
    stream = io.StringIO()
    progress_of(Console(file=stream, force_terminal=True, width=120), caplog, monkeypatch, interval=0.0)
    shown = stream.getvalue()
    assert not any("step " in record.message for record in caplog.records)
    assert "epoch 2/2, loss 5.0000" in shown and "5/6" in shown and "left:" in shown
    assert shown.endswith("\x1b[2K")  # the line is erased
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def drawn_run(folder, steps, loss, resumed_from=0):
    """A run of epochs of two steps, from a step on, all with one loss; its evaluator never validates."""
    evaluator = Engine(lambda *_: None)
    engine = Engine(lambda *_: {"loss": torch.tensor(loss)})
    engine.state.max_epochs, engine.state.epoch_length = steps // 2, 2
    engine.state.epoch, engine.state.iteration = resumed_from // 2, resumed_from
    Curves(folder, torch.optim.SGD([torch.zeros(1)], lr=0.25), evaluator).attach(engine)
    engine.run([0, 0], max_epochs=steps // 2)


def test_a_resumed_run_keeps_the_curves_up_to_where_it_goes_on_and_replaces_what_lies_beyond(tmp_path):
    drawn_run(tmp_path, steps=6, loss=1.0)
    drawn_run(tmp_path, steps=8, loss=2.0, resumed_from=4)
    assert len(list(tmp_path.iterdir())) == 2
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert [(point.step, point.value) for point in shown] == [(step, 1.0 if step <= 4 else 2.0) for step in range(1, 9)]


def test_only_the_main_process_shows_and_writes(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    drawn_run(tmp_path, steps=2, loss=1.0)
    assert not [line for line in progress_of(Console(file=io.StringIO()), caplog, monkeypatch) if "epoch " in line]
    run_of(tmp_path, HFTNSR(**TINY), [0.1])
    assert list(tmp_path.iterdir()) == []


def test_the_preview_s_scales_do_not_depend_on_the_prediction():
    generator = torch.Generator().manual_seed(0)
    image, label = torch.rand(3, 40, 50, 3, generator=generator), torch.rand(1, 40, 50, 3, generator=generator)

    def drawn(pred):
        return matplotlib.image.imread(io.BytesIO(preview(image, label, pred, "case")))

    good, bad, far = drawn(label), drawn(label + 0.3), drawn(label * 100)
    assert good.shape == bad.shape == far.shape
    differs = [np.flatnonzero((good != other).any((0, 2))) for other in (bad, far)]
    width = good.shape[1]
    # Of the five panels side by side, the third and the fifth hold the prediction.
    assert all(set(columns * 5 // (width - width // 20)) <= {1, 2, 3, 4} for columns in differs)
    unchanged = (good == far).all((0, 2))
    assert unchanged[: 2 * width // 5 - width // 20].all()
    assert not unchanged.all()


def test_a_preview_of_an_empty_case_is_still_a_picture():
    empty = torch.zeros(1, 16, 16, 1)
    assert preview(empty.expand(3, -1, -1, -1), empty, empty, "case").startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 torn", "other"])
def test_a_damaged_checkpoint_is_named_with_its_cure(tmp_path, content):
    if content == "other":
        torch.save({"weights": 1}, tmp_path / "latest.pt")
    else:
        (tmp_path / "latest.pt").write_bytes(content)
    with pytest.raises(Fault, match=r"latest\.pt: .*checkpoint .*move it"):
        read_checkpoint(tmp_path / "latest.pt")
