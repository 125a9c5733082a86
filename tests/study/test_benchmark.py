"""The benchmark: its arithmetic, its table and its faults. Times themselves are not tested."""

import importlib
import json
import platform
import time
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

SCRIPTS = Path(__file__).parents[2] / "study"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)  # not only for the import here: a child process needs it, too
        yield importlib.import_module("benchmark_measures")


@pytest.fixture
def script(benchmark):
    return importlib.import_module("benchmark")


@pytest.fixture
def run(script):
    app = typer.Typer()
    app.command()(script.main)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def without_children(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "peak_memory", lambda job, side, device: 123.0)


def test_every_call_has_its_turn_in_every_round(benchmark):
    turns = []
    calls = {name: (lambda name=name: turns.append(name)) for name in "abc"}
    times = benchmark.take_turns(calls, 2, lambda call: call() or 1.0)
    assert turns == list("abc" * 3)  # the first round warms up
    assert times == {name: [1.0, 1.0] for name in "abc"}


def test_the_yardstick_is_timed_right_before_each_network(benchmark, without_children, monkeypatch):
    turns = []
    monkeypatch.setattr(benchmark, "_forward", lambda job, side, device: lambda: turns.append(f"{job.name} x{job.scale}"))
    monkeypatch.setattr(benchmark, "_convolution", lambda *_: (lambda: None, 1.0))
    seconds = iter([7.0, 9.0, *[value for ratio in (3.0, 5.0) for value in (2.0, 2.0 * ratio)], *[1.0] * 6])
    monkeypatch.setattr(benchmark, "_timer", lambda device: lambda call: call() or next(seconds))
    rows, _ = benchmark.measured([benchmark.Job("neu", 4, "float32"), benchmark.Job("mcsr", 2, "float32")], 1, 32)
    assert turns == ["edsr x4", "edsr x2", "edsr x4", "neu x4", "edsr x2", "mcsr x2"] * 2  # the first round warms up
    assert {(row.name, row.scale, row.ratio_edsr) for row in rows} == {("edsr", 4, 1), ("edsr", 2, 1), ("neu", 4, 3), ("mcsr", 2, 5)}


def test_the_ratio_is_taken_within_each_round_so_that_a_slower_machine_cancels(benchmark):
    assert benchmark.ratio([2.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == (2.0, 2.0, 3.0)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_exponent_is_that_of_time_over_pixels(benchmark, power):
    sides = (128, 256, 1024)
    assert benchmark.exponent(sides, [3e-7 * (side**2) ** power for side in sides]) == pytest.approx(power)


def test_hftn_has_a_bound_to_keep_and_the_peers_have_none(benchmark):
    assert [benchmark.ratio_bound(benchmark.Job("hftn", scale, "float32")) for scale in (2, 4)] == [5.2, 3.9]
    assert benchmark.ratio_bound(benchmark.Job("ablation_3", 2, "float32")) == pytest.approx(5.2, rel=0.2)  # from multiplications
    for other in (("sanet", 2, "float32"), ("hftn", 2, "bfloat16"), ("hftn", 2, "float32", '{"channels": 8}')):
        assert benchmark.ratio_bound(benchmark.Job(*other)) is None


def test_time_is_that_of_the_process_not_of_the_clock(benchmark):
    assert benchmark._timer("cpu")(lambda: time.sleep(0.2)) < 0.1


def test_memory_is_of_a_process_of_its_own(benchmark):
    held = torch.ones(300 << 18)  # 300 MiB here must not count there
    assert 0 < benchmark.peak_memory(benchmark.Job("edsr", 4, "float32"), 32, "cpu") < 200
    assert held.numel()


MEMORY = {
    ("base", 2): 118,
    ("base", 4): 117,
    ("small", 2): 67,
    ("small", 4): 67,
    ("hftn_light", 2): 119,
    ("hftn_light", 4): 112,
    ("hftn", 2): 168,
    ("hftn", 4): 160,
}  # MB at 320 x 320


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="measured with glibc")
@pytest.mark.parametrize(("name", "scale"), MEMORY)
def test_peak_memory_does_not_grow_unnoticed(benchmark, name, scale, monkeypatch):
    """A quarter more is room for other builds of PyTorch; a copy of all features at full size would be more.

    Every large block is given back at once: left to itself, glibc keeps some, and the peak of `hftn` at x2 is anything from 150 to 240 MB.
    """
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    assert benchmark.peak_memory(benchmark.Job(name, scale, "float32"), 320, "cpu") < 1.25 * MEMORY[name, scale]


def test_the_file_has_a_row_for_each_network_and_scale_and_the_yardstick(run, without_children, tmp_path):
    done = run("--networks", "early_fusion,edsr:bfloat16", "--scales", 4, "--rounds", 1, "--side", 32, "--output", tmp_path / "bench.json")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "bench.json").read_text())
    rows = {(row["name"], row["precision"]): row for row in written["rows"]}
    assert set(rows) == {("edsr", "float32"), ("early_fusion", "float32"), ("edsr", "bfloat16")}
    assert rows["edsr", "float32"]["ratio_edsr"] == 1.0
    for row in rows.values():
        assert {"name", "scale", "params", "gmac", "cpu_ms", "ratio_edsr", "rss_mb", "limit_share"} <= set(row)
        assert row["scale"] == 4 and row["cpu_ms"] > 0 and row["limit_share"] > 0 and row["rss_mb"] == 123.0
    share = rows["edsr", "float32"]["gmac"] / (rows["edsr", "float32"]["cpu_ms"] / 1e3) / written["limits_gmac_per_s"]["float32"]
    assert rows["edsr", "float32"]["limit_share"] == pytest.approx(share)
    assert {"avx512_bf16", "amx", "torch"} <= set(written["machine"])


def test_growth_gives_an_exponent(run, benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark.measured_growth, "__defaults__", ("cpu", (32, 48)))
    done = run("--networks", "edsr", "--scales", 4, "--rounds", 1, "--growth", "only", "--output", tmp_path / "growth.json")
    assert done.exit_code == 0, done.output
    (found,) = json.loads((tmp_path / "growth.json").read_text())["growth"]
    assert set(found["seconds"]) == {"32", "48"} and isinstance(found["exponent"], float)


def test_a_plain_run_shows_each_bound_beside_its_figure(run, script, without_children, benchmark, monkeypatch):
    assert {"hftn", "hftn_light", "base", "small", "base:bfloat16", "small:bfloat16", "sanet", "edsr"} <= set(script.STANDARD)
    monkeypatch.setattr(script, "STANDARD", ["small", "small:bfloat16", "hftn_light"])
    monkeypatch.setattr(benchmark.measured_growth, "__defaults__", ("cpu", (32, 48)))
    done = run("--scales", 2, "--rounds", 1, "--side", 32)
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if line]
    (small,) = [line for line in lines if "small x2 float32" in line and "to the power" not in line]
    assert "1.00" in small and "123 (bound 250 kept)" in small
    assert any("small x2: bfloat16 is" in line and "(bound 2.0, " in line for line in lines)
    assert [line.split(":")[0] for line in lines if "to the power" in line] == ["small x2 float32"]  # the search of the other grows faster
    assert any("limit, torch.bfloat16" in line for line in lines)


def test_the_plot_is_drawn_from_a_table_with_scores(run, without_children, tmp_path):
    (tmp_path / "table.csv").write_text("method,scale,psnr\nedsr,4,33.0\nedsr,4,35.0\n")
    quick = ["--networks", "edsr", "--scales", 4, "--rounds", 1, "--side", 32, "--plot", tmp_path / "plot.png"]
    done = run(*quick, "--table", tmp_path / "table.csv")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_table_there_is_no_plot_and_it_says_so(run, without_children, tmp_path):
    done = run("--networks", "edsr", "--scales", 4, "--rounds", 1, "--side", 32, "--plot", tmp_path / "plot.png")
    assert "no plot: --table is missing" in done.output
    assert not (tmp_path / "plot.png").exists()


def test_scores_are_means_over_cases(script, tmp_path):
    (tmp_path / "table.csv").write_text("method,scale,psnr\nbase,x2,40\nbase,x2,42\nbase,4,30\n")
    assert script.read_table(tmp_path / "table.csv") == {("base", 2): (41.0, "{}"), ("base", 4): (30.0, "{}")}


def test_networks_of_a_table_have_the_sizes_that_its_scores_are_of(run, without_children, tmp_path):
    table = 'method,scale,psnr,options\nzero_filling,4,30,\nedsr,4,33.0,"{""channels"": 8}"\nbase,4,34.0,"{""channels"": 8}"\n'
    (tmp_path / "table.csv").write_text(table)
    quick = ["--rounds", 1, "--side", 32, "--output", tmp_path / "bench.json", "--growth", "without"]  # both scales, of which it has one
    done = run(*quick, "--table", tmp_path / "table.csv", "--plot", tmp_path / "plot.png")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    yardstick, edsr, base = rows
    assert [row["options"] for row in rows] == ["{}", '{"channels": 8}', '{"channels": 8}']
    assert edsr["params"] < yardstick["params"] / 10 and edsr["ratio_edsr"] < 1
    assert base["name"] == "base" and base["ratio_bound"] is None
    assert "edsr x4 float32 (channels 8)" in done.output
    assert (tmp_path / "plot.png").exists()


@pytest.mark.parametrize("wrong", [["--networks", "edsr,sannet"], ["--device", "gpu"]])
def test_what_is_not_known_is_refused_before_anything_is_measured(run, wrong):
    done = run(*wrong)
    assert done.exit_code == 2
    assert "is not known" in done.output
