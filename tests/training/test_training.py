"""Training runs whose course can be told beforehand: repeated, killed and resumed, on the paper's schedule, in two processes."""

import signal

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from monai.bundle import ConfigParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_process import CONFIGS, train

from hftn_sr.networks.weights import load_model
from hftn_sr.training.handlers.state import LOCK
from hftn_sr.volumes.nifti import read_nifti

SMALL = {
    "method": "hftn_light", "options": {"channels": 16, "stages": 1, "embedding": 8}, "crop_size": 32, "crops_per_slice": 2, "amp": False,
    "val_interval": 1,
}  # fmt: skip
THREE_EPOCHS = {**SMALL, "epochs": 3, "epoch_cases": 6, "cases_per_step": 2}  # of three steps each


@pytest.fixture(scope="session")
def unbroken(dataset, tmp_path_factory):
    """Folder of a run of three epochs."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert train(dataset_dir=dataset, output_dir=folder / "run", log=folder / "log", **THREE_EPOCHS) == [0], (folder / "log.0").read_text()
    return folder / "run"


def curve(folder, name):
    """Steps and values of one curve, as TensorBoard shows it."""
    events = EventAccumulator(str(folder)).Reload().Scalars(name)
    return [event.step for event in events], [event.value for event in events]


def state(folder):
    return torch.load(folder / "latest.pt", weights_only=True)


def assert_same_state(folder, other):
    first, second = state(folder), state(other)
    assert first.pop("run") == second.pop("run")
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def best(folder):
    """Record and bytes of the best weights; the file keeps its record in any order."""
    model = load_model(str(folder / "best.safetensors"), 2)
    return model.record, {name: tensor.numpy().tobytes() for name, tensor in model.network.state_dict().items()}


def test_the_same_short_training_twice_with_one_seed_gives_the_same_weights_bit_for_bit_on_a_cpu(dataset, unbroken, tmp_path):
    assert train(dataset_dir=dataset, output_dir=tmp_path / "again", log=tmp_path / "log", **THREE_EPOCHS) == [0]
    assert_same_state(tmp_path / "again", unbroken)
    assert float(state(unbroken)["network"]["output.weight"].abs().max()) > 1e-4  # something was learned
    assert best(tmp_path / "again") == best(unbroken)
    assert curve(tmp_path / "again", "train/loss") == curve(unbroken, "train/loss")


def test_a_training_killed_within_its_second_epoch_and_resumed_ends_as_an_unbroken_one(dataset, unbroken, tmp_path):
    kill = "$@train#trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda: os.kill(os.getpid(), signal.SIGKILL))"
    run = yaml.safe_load((CONFIGS / "train.yaml").read_text())["run"]
    overlay = {"+imports": ["$import os", "$import signal", "$from ignite.engine import Events"], "run": [*run[:-1], kill, run[-1]]}
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump(overlay))
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log", **THREE_EPOCHS}
    assert train(tmp_path / "killed.yaml", **to) == [-signal.SIGKILL]
    assert (state(tmp_path / "run")["epoch"], state(tmp_path / "run")["iteration"]) == (1, 3)
    (earlier,) = [(path, path.read_bytes()) for path in (tmp_path / "run").glob("events*")]
    assert train(**to) == [0]
    assert "epoch 2/3" in (tmp_path / "log.0").read_text() and "epoch 1/3" not in (tmp_path / "log.0").read_text()
    assert_same_state(tmp_path / "run", unbroken)
    assert best(tmp_path / "run") == best(unbroken)
    for name in ("train/loss", "train/learning_rate", "validation/psnr_gain"):
        assert curve(tmp_path / "run", name) == curve(unbroken, name), name  # each step once, with one value
    assert earlier[0].read_bytes() == earlier[1]


def test_a_training_goes_on_from_weights_and_says_from_which(dataset, unbroken, tmp_path):
    start = unbroken / "best.safetensors"
    to = {"dataset_dir": dataset, "log": tmp_path / "log", **SMALL, "epochs": 1, "epoch_cases": 2, "cases_per_step": 2}
    still = {"learning_rate": 1e-9, "adam_learning_rate": 1e-9}
    assert train(output_dir=tmp_path / "run", initial_weights=start, **to, **still) == [0], (tmp_path / "log.0").read_text()
    model, trained = load_model(str(start), 2), load_model(str(tmp_path / "run" / "best.safetensors"), 2)
    torch.testing.assert_close(trained.network.state_dict(), model.network.state_dict(), rtol=0, atol=1e-7)
    assert trained.record["start"] == {"sha256": model.sha256, **model.record}
    assert "start" in best(unbroken)[0] and best(unbroken)[0]["start"] is None


def test_weights_of_another_network_to_go_on_from_end_the_run_with_one_line(dataset, unbroken, tmp_path):
    start = unbroken / "best.safetensors"
    options = {**SMALL, "method": "edsr", "options": {}, "dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log"}
    assert train(initial_weights=start, **options) == [9]
    text = (tmp_path / "log.0").read_text()
    assert f"ERROR {start}: weights of another network" in text and "Traceback" not in text
    assert not (tmp_path / "run" / "latest.pt").exists()


def test_the_curves_hold_every_step_and_every_validation_with_a_picture(unbroken):
    assert curve(unbroken, "train/loss")[0] == list(range(1, 10))
    rates = curve(unbroken, "train/learning_rate")[1]
    np.testing.assert_allclose(
        rates, 1e-2 * (1 + np.cos(np.pi * np.arange(1, 10) / 9)) / 2, rtol=1e-6, atol=1e-9
    )  # a cosine over all steps
    for name in ("psnr", "ssim", "psnr_gain"):
        assert curve(unbroken, f"validation/{name}")[0] == [3, 6, 9]
    assert max(curve(unbroken, "validation/psnr_gain")[1]) == pytest.approx(state(unbroken)["best_score"])
    pictures = EventAccumulator(str(unbroken)).Reload().Images("validation/first_case")
    assert [picture.step for picture in pictures] == [3, 6, 9]


def test_on_the_paper_s_schedule_an_epoch_is_every_training_slice_once_at_one_learning_rate(dataset, tmp_path):
    parser = ConfigParser()
    for name in ("train", "paper_schedule"):
        parser.update(ConfigParser.load_config_file(CONFIGS / f"{name}.yaml"))
    parser.update({"dataset_dir": str(dataset), "output_dir": str(tmp_path)})
    assert (parser["epochs"], parser["learning_rate"], parser["method"]) == (50, 5e-5, "hftn")
    assert parser["optimizer"]["_target_"] == "torch.optim.Adam" and parser["loss"]["_target_"] == "torch.nn.L1Loss"
    slices = parser.get_parsed_content("train#dataset")
    whole = read_nifti(dataset / "all.nii.gz").data
    seen = np.concatenate([case["label"].numpy() for case in slices.data], -1)[0]
    np.testing.assert_allclose(seen / seen.max(), whole / whole.max(), atol=1e-6)
    assert sorted(parser.get_parsed_content("train#sampler")) == [0, 1, 2, 3]

    options = {**SMALL, "epochs": 2, "cases_per_step": 2}
    del options["method"]  # the overlay's own
    assert train("paper_schedule", dataset_dir=dataset, output_dir=tmp_path / "run", log=tmp_path / "log", **options) == [0]
    steps, rates = curve(tmp_path / "run", "train/learning_rate")
    assert steps == [1, 2, 3, 4]
    assert rates == pytest.approx([5e-5] * 4)
    assert load_model(str(tmp_path / "run" / "best.safetensors"), 2).record["network"]["name"] == "hftn"


def test_two_processes_share_an_epoch_and_only_the_first_writes(dataset, tmp_path):
    options = {**SMALL, "epochs": 1, "epoch_cases": 8, "cases_per_step": 2}
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log"}
    assert train("multi_gpu_train", processes=2, **to, **options) == [0, 0], (tmp_path / "log.1").read_text()[-2000:]
    assert state(tmp_path / "run")["iteration"] == 2
    assert len(list((tmp_path / "run").glob("events*"))) == 1
    assert load_model(str(tmp_path / "run" / "best.safetensors"), 2).record["steps"] == 2
    voices = [
        [line for line in (tmp_path / f"log.{rank}").read_text().splitlines() if "psnr" in line or "epoch 1/1" in line] for rank in (0, 1)
    ]
    assert voices[0] and not voices[1]


def test_more_processes_than_validation_cases_are_refused_in_one_line(dataset, tmp_path):
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log"}
    assert train("multi_gpu_train", processes=3, **to, **THREE_EPOCHS) == [9, 9, 9]
    assert (tmp_path / "log.0").read_text().splitlines()[-1] == (
        f"ERROR {dataset / 'datalist.json'}: 3 processes are to share 2 of its cases for the scores, and each needs at least one."
        " Fix: --nproc_per_node=2, or list more cases."
    )


def test_processes_whose_folder_another_training_holds_end_together_with_one_line(dataset, tmp_path):
    (tmp_path / "run").mkdir()
    state = "hftn_sr.training.handlers.state"
    soon = {"+imports": [f"$import {state}"], "+initialize": [f"$setattr({state}, 'PATIENCE', 0.1)"]}
    (tmp_path / "soon.yaml").write_text(yaml.safe_dump(soon))
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log"}
    with FileLock(tmp_path / "run" / LOCK):
        assert train("multi_gpu_train", tmp_path / "soon.yaml", processes=2, **to, **THREE_EPOCHS) == [9, 9]
    logs = [(tmp_path / f"log.{rank}").read_text() for rank in (0, 1)]
    told = [[line for line in text.splitlines() if "another training is writing into this folder" in line] for text in logs]
    assert [len(lines) for lines in told] == [1, 0]
    assert told[0][0].startswith(f"ERROR {tmp_path / 'run'}: ")
    assert not any("Traceback" in text for text in logs)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_two_processes_learn_what_one_does_from_both_their_batches_and_score_every_volume_once(dataset, tmp_path):
    generator = torch.Generator().manual_seed(0)

    def cases(*shapes):
        images = [(torch.rand(3, *shape, generator=generator), torch.rand(1, *shape, generator=generator)) for shape in shapes]
        unit = {"mean": torch.zeros(1, 1, 1, 1), "std": torch.ones(1, 1, 1, 1)}
        return [{"image": image, "label": label, **unit} for image, label in images]

    torch.save({"training": cases(*[(16, 16)] * 4), "validation": cases((16, 16, 1), (16, 16, 3), (16, 16, 2))}, tmp_path / "data.pt")
    fixed = {
        "data": f"$torch.load({str(tmp_path / 'data.pt')!r}, weights_only=True)",
        "train#dataset": {"_target_": "Dataset", "data": "$@data['training']"},
        "validate#dataset": {"_target_": "Dataset", "data": "$@data['validation']"},
        "train#sampler": "$range(torch.distributed.is_initialized() and torch.distributed.get_rank(), 4, @share)",
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"},
    }
    (tmp_path / "fixed.yaml").write_text(yaml.safe_dump(fixed))
    ends = []
    for processes, overlays in ((1, ()), (2, ("multi_gpu_train",))):
        options = {**SMALL, "epochs": 3, "learning_rate": 0.1, "cases_per_step": 4 // processes, "share": processes}
        to = {"dataset_dir": dataset, "output_dir": tmp_path / f"run{processes}", "log": tmp_path / "log"}
        codes = train(*overlays, tmp_path / "fixed.yaml", processes=processes, **to, **options)
        assert codes == [0] * processes, (tmp_path / "log.0").read_text()[-2000:]
        ends.append(state(tmp_path / f"run{processes}"))
    one, two = ends
    assert one["iteration"] == two["iteration"] == 3
    for name, weight in one["network"].items():
        torch.testing.assert_close(two["network"][name], weight, rtol=1e-4, atol=1e-7, msg=name)
    assert float(one["network"]["output.weight"].abs().max()) > 1e-3  # it began with zeros
    assert two["best_score"] == pytest.approx(one["best_score"], abs=1e-4)
