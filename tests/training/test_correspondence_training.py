"""Training of the search: known displacements, its losses, its stages, and a run that goes on where it was."""

import math
import signal

import pytest
import torch
import yaml
from torch.nn import functional
from training_process import CONFIGS, train

from hftn_sr.networks import build_network
from hftn_sr.networks.correspondence import Correspondence
from hftn_sr.networks.gated_unet import GatedUNet
from hftn_sr.networks.transfer_attention import Found, moved
from hftn_sr.networks.weights import load_model, save_weights
from hftn_sr.training.correspondence import (
    CorrespondenceInferer,
    CorrespondenceLoss,
    Searched,
    Stages,
    TwoCosines,
    prepare_batch,
    search_losses,
)
from hftn_sr.training.start import begun_with, initial_network
from hftn_sr.training.transforms import (
    DisplaceReferenced,
    ForeignReferenced,
    NoiseReferenced,
    PaintSpots,
    RandDisplaceReferenced,
    RandForeignReferenced,
    RandPaintSpots,
    ReverseReferenced,
    Spot,
)
from hftn_sr.training.transforms.displacement import inverse_field

SIZE = 64
INSIDE = (..., slice(16, -16), slice(16, -16))


def texture(seed=0, size=SIZE):
    generator = torch.Generator().manual_seed(seed)
    image = functional.interpolate(torch.rand(1, 1, size // 4, size // 4, generator=generator), scale_factor=4.0, mode="bicubic")
    return image[0] + 0.3


def far(seed=0, **options):
    transform = RandDisplaceReferenced(prob=1.0, **options)
    transform.set_random_state(seed)
    return transform


@pytest.mark.parametrize("seed", range(4))
def test_what_a_voxel_shows_lies_at_its_displacement_in_the_bent_reference(seed):
    image = texture()
    found = far(seed, voxels=4.0)({"label": image, "reference": image})
    assert float((found["reference"] - image)[INSIDE].abs().mean()) > 0.03
    back = moved(found["reference"][None], found["displacement"][None])[0]
    assert float((back - image)[INSIDE].abs().mean()) < 0.012
    assert found["placed"][INSIDE].min() == 1


def test_a_shift_is_displaced_by_what_it_was_shifted():
    bend = torch.tensor([2.0, -1.0]).view(2, 1, 1).expand(2, SIZE, SIZE)
    image = texture()
    found = DisplaceReferenced(bend)({"label": image, "reference": image})
    torch.testing.assert_close(found["displacement"], -bend)
    # Twice the samples hold the samples, so that whole voxels come back as they are.
    torch.testing.assert_close(found["reference"][:, 4:-4, 4:-4], image.roll((-2, 1), (-2, -1))[:, 4:-4, 4:-4], atol=1e-3, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_a_field_and_its_inverse_cancel(seed):
    bend = far(seed)._far(128, 128)
    there = inverse_field(bend)
    again = moved(bend[None], there[None])[0]
    assert float((there + again)[..., 32:-32, 32:-32].abs().max()) < 0.05


def test_draws_stay_within_their_bounds():
    fields = [far(seed, degrees=0.0, bend=0.0)._far(32, 32) for seed in range(50)]
    lengths = torch.stack([each.norm(dim=0).max() for each in fields])
    assert 4 < lengths.max() <= 6
    bends = [far(seed, degrees=0.0, voxels=0.0)._far(256, 256).norm(dim=0).quantile(0.95) for seed in range(20)]
    assert 2.5 < max(bends) < 5.5


def test_near_and_unmoved_references_have_their_displacement_too():
    image = texture()
    near = RandDisplaceReferenced(prob=0.0, near_prob=1.0)
    near.set_random_state(1)
    found = near({"label": image, "reference": image})
    assert 0.05 < found["displacement"].norm(dim=0).max() < 0.7 * math.sqrt(2) + 0.4
    still = RandDisplaceReferenced(prob=0.0, near_prob=0.0)({"label": image, "reference": image})
    assert torch.equal(still["reference"], image)
    assert not still["displacement"].any()


@pytest.mark.parametrize("change", [{"foreign": True}, {"reference": torch.zeros(1, SIZE, SIZE)}, {"label": torch.zeros(1, SIZE, SIZE)}])
def test_no_voxel_has_a_place_in_a_foreign_or_empty_reference_or_without_signal(change):
    found = DisplaceReferenced(None)({"label": texture(), "reference": texture(), **change})
    assert not found["placed"].any()


def test_a_foreign_reference_is_mirrored_and_from_further_on():
    volume = torch.rand(1, 6, 8, 5)
    found = ForeignReferenced((2,), 2)({"reference": volume})
    assert torch.equal(found["reference"][..., 0], volume[..., 2].flip(2))
    assert found["foreign"] is True
    assert RandForeignReferenced(0.0)({"reference": volume})["foreign"] is False
    always = RandForeignReferenced(1.0)
    always.set_random_state(0)
    drawn = always({"reference": volume})
    assert drawn["foreign"]
    assert not torch.equal(drawn["reference"], volume)


def perfect(displacement, radius=3, sharpness=1e3):
    """A search that knows, and is sure of it."""
    truth = functional.avg_pool2d(displacement, 2) / 2
    steps = torch.arange(-radius, radius + 1.0)
    offsets = torch.stack([steps.repeat_interleave(2 * radius + 1), steps.repeat(2 * radius + 1)], 1)
    near = (truth[:, None] - offsets[None, :, :, None, None]).abs().clamp_max(1)
    shares = (1 - near).prod(2)
    return Found((shares + 1e-30).log(), truth, torch.full_like(truth[:, :1], sharpness))


def test_a_perfect_search_has_the_least_losses():
    displacement = torch.tensor([1.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 24, 24)
    placed = torch.ones(1, 1, 24, 24)
    losses = search_losses(perfect(displacement), displacement, placed)
    assert float(losses["place"]) == pytest.approx(2 * math.log(2), abs=1e-4)  # of four neighbours alike: their entropy
    assert float(losses["remainder"]) < 2e-3
    assert float(losses["relevance"]) < 1e-4
    worse = search_losses(perfect(-displacement), displacement, placed)
    assert all(float(worse[name]) > float(losses[name]) + 0.5 for name in losses)


def test_places_that_do_not_exist_teach_only_distrust():
    displacement, nowhere = torch.zeros(1, 2, 24, 24), torch.zeros(1, 1, 24, 24)
    found = perfect(displacement)
    losses = search_losses(found._replace(relevance=torch.zeros_like(found.relevance)), displacement, nowhere)
    assert (float(losses["place"]), float(losses["remainder"])) == (0, 0)
    assert float(losses["relevance"]) == pytest.approx(math.log(2))


def test_places_out_of_reach_or_outside_the_crop_do_not_count():
    displacement = torch.zeros(1, 2, 24, 24)
    displacement[:, :, 12:] = 40.0
    displacement[:, 0, 0] = displacement[:, 0, 1] = -2.0
    found = perfect(torch.zeros(1, 2, 24, 24))
    losses = search_losses(found, displacement, torch.ones(1, 1, 24, 24))
    assert float(losses["place"]) == pytest.approx(0, abs=1e-4)


def batch(size=32):
    image = torch.rand(2, 3, size, size)
    return {
        "image": image,
        "label": image[:, :1] + 0.1,
        "displacement": torch.zeros(2, 2, size, size),
        "placed": torch.ones(2, 1, size, size),
        "painted": torch.zeros(2, 1, size, size),
    }


@pytest.mark.parametrize("stage", ["search", "synthesis", "all"])
def test_each_stage_teaches_its_part_alone(stage):
    torch.manual_seed(0)
    network = Correspondence(2, channels=8, levels=2, embedding=8, radius=2)
    torch.nn.init.normal_(network.synthesis.output.weight)
    inferer = CorrespondenceInferer(enabled=False)
    inferer.stage = stage
    inputs, truth = prepare_batch(batch())
    CorrespondenceLoss(0.1)(inferer(inputs, network), truth).backward()
    taught = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert taught == {"search": {"embed", "attend"}, "synthesis": {"synthesis"}, "all": {"embed", "attend", "synthesis"}}[stage]


def test_the_image_s_loss_is_the_mean_absolute_error_and_the_search_s_are_weighted():
    torch.manual_seed(0)
    network = Correspondence(2, channels=8, levels=2, embedding=8, radius=2)
    inferer, (inputs, truth) = CorrespondenceInferer(enabled=False), prepare_batch(batch())
    searched = inferer(inputs, network)
    supervised = sum(search_losses(searched.found, truth["displacement"], truth["placed"]).values())
    torch.testing.assert_close(CorrespondenceLoss(0.2)(searched, truth), torch.tensor(0.1) + 0.2 * supervised)
    torch.testing.assert_close(CorrespondenceLoss(0.2)(searched._replace(pred=None), truth), supervised)


def test_the_stage_follows_from_the_epoch():
    inferer = CorrespondenceInferer()
    stages = Stages(2, 1, inferer)
    seen = []
    for epoch in range(1, 6):
        engine = type("Engine", (), {"state": type("State", (), {"epoch": epoch, "max_epochs": 5})})
        stages(engine)
        seen.append(inferer.stage)
    assert seen == ["search", "search", "synthesis", "synthesis", "all"]


def test_learning_rates_fall_twice_and_go_on_from_a_checkpoint():
    def made():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        return optimizer, TwoCosines(optimizer, search_steps=4, steps=10)

    optimizer, schedule = made()
    rates, state = [], None
    for step in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        if step == 5:
            state = (optimizer.state_dict(), schedule.state_dict())
    assert rates[0] == rates[4] == 2.0
    assert rates[2] == pytest.approx(1.0)
    assert rates[7] == pytest.approx(1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0)
    other, resumed = made()
    other.load_state_dict(state[0])
    resumed.load_state_dict(state[1])
    assert other.param_groups[0]["lr"] == pytest.approx(rates[6])


SMALL = {
    "method": "correspondence_small", "options": {"channels": 8, "levels": 2, "embedding": 8, "radius": 2}, "crop_size": 32,
    "crops_per_slice": 2, "amp": False, "val_interval": 1, "epochs": 3, "search_epochs": 1, "all_epochs": 1, "epoch_cases": 4,
    "cases_per_step": 2,
}  # fmt: skip


def test_a_run_killed_in_its_last_stage_goes_on_in_it_to_the_same_weights(dataset, tmp_path):
    kill = "$@train#trainer.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda: os.kill(os.getpid(), signal.SIGKILL))"
    run = yaml.safe_load((CONFIGS / "train.yaml").read_text())["run"]
    overlay = {"+imports": ["$import os", "$import signal", "$from ignite.engine import Events"], "run": [*run[:-1], kill, run[-1]]}
    (tmp_path / "killed.yaml").write_text(yaml.safe_dump(overlay))
    to = {"dataset_dir": dataset, "log": tmp_path / "log", **SMALL}
    assert train("train_correspondence", output_dir=tmp_path / "whole", **to) == [0], (tmp_path / "log.0").read_text()[-2000:]
    assert train("train_correspondence", tmp_path / "killed.yaml", output_dir=tmp_path / "run", **to) == [-signal.SIGKILL]
    assert train("train_correspondence", output_dir=tmp_path / "run", **to) == [0]
    one, other = (torch.load(tmp_path / name / "latest.pt", weights_only=True) for name in ("whole", "run"))
    assert (one["epoch"], one["iteration"]) == (3, 6)
    assert one["run"]["loss"]["search_weight"] == 0.01
    assert one.pop("run") == other.pop("run")
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert type(load_model(str(tmp_path / "run" / "best.safetensors"), 2).network) is Correspondence


def test_a_run_begins_with_a_trained_unet_and_records_it(dataset, tmp_path):
    unet = GatedUNet(2, channels=8, levels=2)
    torch.nn.init.normal_(unet.output.weight)
    save_weights(tmp_path / "unet.safetensors", unet, {"iterations": 7})
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log", **SMALL, "epochs": 1, "all_epochs": 0}
    assert train("train_correspondence", initial_unet=tmp_path / "unet.safetensors", **to) == [0], (tmp_path / "log.0").read_text()[-2000:]
    state = torch.load(tmp_path / "run" / "latest.pt", weights_only=True)  # of the search alone, so that the U-Net is as it was
    assert torch.equal(state["network"]["synthesis.output.weight"], unet.output.weight)
    assert state["run"]["start"]["iterations"] == 7


def test_a_search_is_taught_on_any_acquisition(dataset, tmp_path):
    to = {"dataset_dir": dataset, "output_dir": tmp_path / "run", "log": tmp_path / "log", **SMALL, "epochs": 1, "all_epochs": 1}
    assert train("train_correspondence", acquisition="any", **{**to, "search_epochs": 0}) == [0], (tmp_path / "log.0").read_text()[-2000:]
    trained = load_model(str(tmp_path / "run" / "best.safetensors"), None)
    assert type(trained.network) is Correspondence
    assert trained.network.options["scale"] is None
    assert trained.record["acquisition"] == "any"


def test_a_unet_of_another_size_is_refused_in_one_line(tmp_path, capsys):
    save_weights(tmp_path / "unet.safetensors", GatedUNet(2, channels=12, levels=2), {})
    network = Correspondence(2, channels=8, levels=2, embedding=8, radius=2)
    with pytest.raises(SystemExit):
        begun_with(network, str(tmp_path / "unet.safetensors"), 2)
    assert "initial_unet" in capsys.readouterr().err
    assert begun_with(network, None, 2) is network


def shows_alike(size=SIZE):
    return DisplaceReferenced(None)({"label": texture(size=size), "reference": texture(size=size)})


def test_a_spot_is_painted_into_one_image_and_has_no_place_in_the_other():
    pair = shows_alike()
    found = PaintSpots([Spot("label", 20, 30, 6, 0.4), Spot("reference", 44, 24, 4, -0.3)])(pair)
    label, reference = (found[key] - pair[key] for key in ("label", "reference"))
    assert float(label[0, 20, 30]) == pytest.approx(0.4, abs=1e-6)
    assert float(label.sum()) == pytest.approx(0.4 * math.pi * 9, rel=0.03)
    assert float(reference.sum()) == pytest.approx(-0.3 * math.pi * 4, rel=0.05)
    assert not label[0, 40:, :].any()
    assert not reference[0, :36, :].any()
    assert found["painted"][0, 20, 30] == found["painted"][0, 44, 24] == 1
    assert not (found["placed"] * (found["painted"] >= 0.5)).any()
    assert found["placed"][0, 10, 10] == 1
    assert not found["painted"][0, :8].any()


def test_a_spot_of_the_reference_lies_where_its_displacement_leads():
    image = texture()
    pair = DisplaceReferenced(torch.tensor([3.0, -2.0]).view(2, 1, 1).expand(2, SIZE, SIZE))({"label": image, "reference": image})
    reference = (PaintSpots([Spot("reference", 30, 30, 5, 0.5)])(pair)["reference"] - pair["reference"])[0]
    rows, columns = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    centre = [float((reference * places).sum() / reference.sum()) for places in (rows, columns)]
    assert centre == pytest.approx([27, 32], abs=1e-3)


def test_a_ring_is_hollow():
    pair = shows_alike()
    label = (PaintSpots([Spot("label", 32, 32, 12, 0.4, hole=0.5)])(pair)["label"] - pair["label"])[0]
    assert float(label[32, 32]) == pytest.approx(0, abs=1e-6)
    assert float(label[32, 36]) == pytest.approx(0.4, abs=1e-6)


def test_drawn_spots_lie_on_tissue_and_differ():
    pair = shows_alike(128)
    pair["placed"][..., 64:] = 0
    always = RandPaintSpots(prob=1.0)
    always.set_random_state(0)
    first, second = always(pair), always(pair)
    assert first["painted"].any()
    assert not first["painted"][..., 64 + 10 :].any()
    assert not torch.equal(first["painted"], second["painted"])
    assert (first["label"] != pair["label"]).any()
    assert (first["reference"] != pair["reference"]).any()
    never = RandPaintSpots(prob=0.0)(pair)
    assert not never["painted"].any()
    assert torch.equal(never["placed"], pair["placed"])


def test_a_foreign_reference_is_not_painted():
    pair = {**shows_alike(), "placed": torch.zeros(1, SIZE, SIZE)}
    always = RandPaintSpots(prob=1.0)
    always.set_random_state(0)
    assert torch.equal(always(pair)["label"], pair["label"])


def test_noise_in_place_of_a_reference_has_its_mean_and_none_of_its_structure():
    volume = torch.rand(1, 64, 48, 3) + 0.2
    found = NoiseReferenced(5, 1)({"reference": volume})
    assert found["foreign"] is True
    assert found["reference"].shape == volume.shape
    assert float(found["reference"].mean()) == pytest.approx(float(volume.mean()), rel=1e-5)
    assert abs(float(torch.corrcoef(torch.stack([found["reference"].flatten(), volume.flatten()]))[0, 1])) < 0.05
    assert not torch.equal(found["reference"], NoiseReferenced(5, 2)({"reference": volume})["reference"])


def test_a_reversed_reference_keeps_edges_and_background():
    image = torch.zeros(1, SIZE, SIZE)
    image[:, 16:48, 16:32], image[:, 16:48, 32:48] = 0.3, 0.9
    found = ReverseReferenced()({"reference": image})["reference"][0]
    assert float(found[32, 22]) == pytest.approx(0.7)
    assert float(found[32, 42]) == pytest.approx(0.1)
    assert not found[:8].any()


def test_painted_voxels_weigh_more():
    label = torch.zeros(1, 1, 4, 4)
    painted = torch.zeros_like(label)
    painted[..., 0, 0] = 1
    loss = CorrespondenceLoss(spot_weight=7.0)
    pred = torch.zeros_like(label)
    pred[..., 0, 0] = 0.5
    truth = {"label": label, "painted": painted}
    assert float(loss(Searched(pred, None), truth)) == pytest.approx(8 * 0.5 / 16)
    assert float(loss(Searched(pred, None), {**truth, "painted": 0 * painted})) == pytest.approx(0.5 / 16)


@pytest.mark.parametrize("method", ["small", "correspondence_small"])
def test_a_training_takes_the_activation_of_its_initial_weights(tmp_path, method):
    torch.manual_seed(0)
    options = {"channels": 8, "levels": 2}
    trained = build_network(method, 2, {**options, "slope": 0.1})
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_weights(tmp_path / "trained.safetensors", trained, {})
    begun = initial_network(build_network(method, 2, options), str(tmp_path / "trained.safetensors"), 2)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(begun(image), trained(image), rtol=0, atol=5e-3)  # stored in float16
    assert begun.options["slope"] == 0.1
    with pytest.raises(SystemExit):
        initial_network(build_network(method, 2, {**options, "slope": 0.2}), str(tmp_path / "trained.safetensors"), 2)
