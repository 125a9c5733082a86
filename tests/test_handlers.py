import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import Dataset
from monai.transforms import RandFlipd

from hftn_sr.handlers import Checkpoint, ReseedEveryEpoch, StopAtNonFiniteLoss, VolumeScore
from hftn_sr.metrics import psnr
from hftn_sr.networks import HFTNSR
from hftn_sr.weights import load_model

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


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_cases():
    engine = SimpleNamespace(state=SimpleNamespace(epoch=2, iteration=7, output={"loss": float("nan")}, batch={"case": ["b", "a", "b"]}))
    with pytest.raises(FloatingPointError, match=r"loss nan in epoch 2, iteration 7, cases \['a', 'b'\]"):
        StopAtNonFiniteLoss()(engine)
    engine.state.output["loss"] = 0.5
    StopAtNonFiniteLoss()(engine)


def run_of(folder, network, scores):
    """An engine of as many epochs as there are scores, each validated with the next score."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    evaluator = SimpleNamespace(state=SimpleNamespace(metrics={}, key_metric_name="gain", epoch=0))
    handler = Checkpoint(folder, network, optimizer, scheduler, evaluator, {"seed": 5})

    def step(engine, _batch):
        network.output.bias.data.fill_(float(engine.state.epoch))
        optimizer.step()
        evaluator.state.metrics["gain"], evaluator.state.epoch = scores[engine.state.epoch - 1], engine.state.epoch

    engine = Engine(step)
    handler.attach(engine)
    engine.run([0], max_epochs=len(scores))
    return engine


def test_the_best_weights_and_the_latest_state_are_kept_and_a_run_goes_on_from_them(tmp_path):
    run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.3, 0.2])
    best = load_model(str(tmp_path / "best.safetensors"), 2)
    assert best.record == {"seed": 5, "epoch": 2, "steps": 2, "gain": 0.3}
    assert float(best.network.output.bias[0]) == 2
    resumed = HFTNSR(**TINY)
    engine = run_of(tmp_path, resumed, [9.0, 9.0, 9.0, 0.25])
    assert engine.state.iteration == 4  # three epochs were not repeated
    assert float(resumed.output.bias[0]) == 4
    assert load_model(str(tmp_path / "best.safetensors"), 2).record["gain"] == 0.3  # 0.25 is worse than before the break


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    run_of(tmp_path, HFTNSR(**TINY), [0.1])
    before = (tmp_path / "latest.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Exception, match="no space left on the disk"):
        run_of(tmp_path, HFTNSR(**TINY), [0.1, 0.2])
    assert (tmp_path / "latest.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "latest.pt"]
