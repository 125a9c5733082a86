"""A hundred damaged or malicious weights files: each loads or is refused in one line, at once."""

from __future__ import annotations

import json
import os
import random
import time

import pytest
import safetensors.torch

from hftn_sr.errors import Fault
from hftn_sr.networks.bounds import bounded_network
from hftn_sr.networks.weights import load_model, untrained_network
from tiny import tiny_network

COUNT = int(os.environ.get("HFTN_SR_MUTATIONS", "100"))
ABSURD = [0, -1, 3, 1_000_000, 10**9, 10**40, 1e9, 1e308, float("nan"), None, True, "", "x" * 5000, [], [16], {}, {"a": 1}, "\ud800"]
RECORDS = ["[]", "3", "null", '"x"', "{", "[" * 100_000, '{"decomposition": []}', "", "{}", "\0"]


def mutated(draw, network):
    """Bytes of a weights file with one thing wrong, or a few bytes."""
    options, name, record = dict(network.options), "hftn", "{}"
    kind = draw.choice(["option", "option", "option", "surplus", "record", "name", "options", "bytes", "bytes", "cut", "length"])
    if kind == "option":
        options[draw.choice([*options, "scale"])] = draw.choice(ABSURD)
    elif kind == "surplus":
        options[draw.choice(["levels", "width", "chanels", "", "self", "\ud800"])] = draw.choice(ABSURD)
    elif kind == "record":
        record = draw.choice(RECORDS)
    elif kind == "name":
        name = draw.choice(["", "HFTN", "gated_unet", "zero_filling", "edsr", "../x", "\n", "hftn " * 100])
    text = draw.choice(["[]", "3", "", "{", "[" * 100_000, '{"scale": 2}', "null"]) if kind == "options" else json.dumps(options)
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    content = bytearray(safetensors.torch.save(state, {"network": name, "options": text, "record": record}))
    if kind == "bytes":
        header = int.from_bytes(content[:8], "little") + 8
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(header)] = draw.randrange(256)
    elif kind == "cut":
        content = content[: draw.randrange(len(content))]
    elif kind == "length":
        content[:8] = draw.choice([0, 1, 2**63, 2**64 - 1, 100]).to_bytes(8, "little")
    return bytes(content)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_mutated_file_loads_or_is_refused_in_one_line_at_once(tmp_path):
    draw, network, path = random.Random(0), tiny_network(2), tmp_path / "w.safetensors"
    refused = 0
    for number in range(COUNT):
        path.write_bytes(mutated(draw, network))
        for read in (load_model, untrained_network):
            started = time.process_time()
            try:
                read(str(path), 2)
            except Fault as fault:
                refused += read is load_model
                assert len(str(fault).splitlines()) == 1 and len(str(fault)) < 700, f"{number}: {fault}"
            assert time.process_time() - started < 5, number
    assert refused > COUNT / 2


@pytest.mark.parametrize(
    ("name", "options", "finding"),
    [
        ("gated_unet", {"levels": 1_000_000}, "levels is not between 0 and 1024"),
        ("gated_unet", {"channels": 10**9}, "channels is not between 0 and 1024"),
        ("gated_unet", {"channels": 1024, "levels": 4}, "it is far larger than the tensors in the file"),
        ("hftn", {"stages": 1000, "blocks": 1000}, "it is far larger than the tensors in the file"),
        ("edsr", {"blocks": 1000}, "it is far larger than the tensors in the file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
@pytest.mark.parametrize("read", [load_model, untrained_network])
def test_arguments_far_beyond_the_file_are_refused_at_once(read, name, options, finding, tmp_path):
    path, state = tmp_path / "w.safetensors", {key: tensor.contiguous() for key, tensor in tiny_network(2).state_dict().items()}
    safetensors.torch.save_file(state, path, {"network": name, "options": json.dumps({"scale": 2, **options}), "record": "{}"})
    started = time.process_time()
    with pytest.raises(Fault, match=rf"w\.safetensors: does not say which network it is for \(ValueError\(.{finding}.*Fix: use a file"):
        read(str(path), 2)
    assert time.process_time() - started < 5  # also beside other work


@pytest.mark.parametrize("record", ["[]", "3", "null"])
def test_a_record_that_is_no_mapping_is_refused(record, tmp_path):
    network = tiny_network(2)
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    safetensors.torch.save_file(
        state, tmp_path / "w.safetensors", {"network": "hftn", "options": json.dumps(network.options), "record": record}
    )
    with pytest.raises(Fault, match=r"w\.safetensors: holds a record that is no mapping \(.*\)\. Fix: use a file that save_weights wrote"):
        load_model(str(tmp_path / "w.safetensors"), 2)


def test_the_bound_counts_this_network_alone():
    network = tiny_network(2)
    shapes = [tuple(tensor.shape) for tensor in network.state_dict().values()]
    made = [bounded_network(type(network), network.options, shapes) for _ in range(3)]
    assert all(tuple(tensor.shape) in shapes for each in made for tensor in each.state_dict().values())
