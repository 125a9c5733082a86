"""The MONAI Label app in a real server on loopback, from a copy of the bundle; `make label-test` runs this."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("monailabel.app", reason="MONAI Label is not in this environment: make label-test")

import nibabel as nib
import numpy as np
import requests
import torch

BUNDLE = Path(__file__).parents[2] / "bundle"
SAMPLE = BUNDLE / "hftn_sr" / "sample"
MODEL = "/infer/hftn_sr"
TINY = {"run": "tiny", "epochs": 3, "epoch_cases": 4, "crop_size": 32, "validation_slices": 1, "val_interval": 1}
TWO_APPS = """
import sys
from pathlib import Path
from monailabel.interfaces.utils.app import app_instance
ours, other, copy, images = sys.argv[1:]
first = app_instance(ours, images, {"runs": images + "/runs"})
second = app_instance(other, images, {})
assert second.info()["name"] == "other", second.info()
assert sorted(first.info()["models"]) == ["hftn_sr"]
result = first.infer({"model": "hftn_sr", "image": "p03_FLAIR", "device": "cpu"})
Path(result["file"]).unlink()
try:
    app_instance(copy, images, {})
except Exception as error:
    assert "serve each copy of the bundle by its own server" in error.msg, error.msg
else:
    raise SystemExit("a second copy of the bundle was loaded into one process")
"""


def environment():
    """Without whatever the caller's Python sees beyond its own packages: the app must find its bundle itself."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "OMP_NUM_THREADS": "1"}


def command_line(*arguments):
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from hftn_sr.cli import main; main()"
    subprocess.run([sys.executable, "-c", code, str(BUNDLE), *map(str, arguments)], env=environment(), check=True, capture_output=True)


def unpack(folder):
    """A copy of the bundle without what was made by running it."""
    made = shutil.ignore_patterns("__pycache__", "*.egg-info", "runs", "data", "eval", "model", "logs", "lib", "bin")
    return shutil.copytree(BUNDLE, folder, ignore=made)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """bundle/, images/ of four patients: p01 and p02 in high resolution, p03 in low, p04 in low without a reference."""
    place = tmp_path_factory.mktemp("label")
    unpack(place / "bundle")
    images = place / "images"
    images.mkdir()
    for patient in ("p01", "p02", "p03"):
        shutil.copy(SAMPLE / "synthetic_reference.nii.gz", images / f"{patient}_T2W.nii.gz")
        shutil.copy(SAMPLE / "synthetic_target.nii.gz", images / f"{patient}_FLAIR.nii.gz")
    (images / "p03_FLAIR.nii.gz").unlink()
    truth = SAMPLE / "synthetic_target.nii.gz"
    command_line("degrade", "--input", truth, "--output", images / "p03_FLAIR.nii.gz", "--scale", "2")
    shutil.copy(images / "p03_FLAIR.nii.gz", images / "p04_FLAIR.nii.gz")
    shutil.copy(images / "p01_T2W.nii.gz", place / "secret_T2W.nii.gz")
    return place


@pytest.fixture(scope="module")
def expected(place):
    """What the command line makes of p03."""
    output = place / "command_line.nii.gz"
    pair = ("--target", place / "images/p03_FLAIR.nii.gz", "--reference", place / "images/p03_T2W.nii.gz")
    command_line("super-resolve", *pair, "--output", output, "--scale", "2", "--no-preview")
    return nib.load(output)


@pytest.fixture(scope="module")
def server(place):
    """Address of a running server, which is stopped whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = ["--app", place / "bundle/label_app", "--studies", place / "images", "--host", "127.0.0.1", "--port", port]
    settings = {**environment(), "MONAI_LABEL_SESSION_PATH": str(place / "sessions")}
    with (place / "server.log").open("w") as log:
        command = [sys.executable, "-m", "monailabel.main", "start_server", *map(str, app)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=settings, cwd=place)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                requests.get(f"{address}/info/", timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, (place / "server.log").read_text()[-3000:]
                time.sleep(1)
        yield address
    finally:
        with contextlib.suppress(requests.RequestException):
            requests.delete(f"{address}/train/", timeout=30)  # a training is a process of its own
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def infer(server, place):
    """Posts an inference; gives the answer."""

    def post(image="p03_FLAIR", output="image", query="", **parameters):
        form = {"params": (None, json.dumps({"scale": 2, **parameters}))}
        return requests.post(f"{server}{MODEL}?image={image}&output={output}{query}", files=form, timeout=120)

    return post


def volume(answer, place):
    assert answer.status_code == 200, answer.text
    path = place / "answer.nii.gz"
    path.write_bytes(answer.content)
    image = nib.load(path)
    return image.get_fdata(dtype=np.float32), image.affine


def assert_same(answer, expected, place):
    voxels, affine = volume(answer, place)
    assert voxels.shape == (224, 272, 8)  # the high-resolution grid of a target of 112 x 136 x 8
    np.testing.assert_array_equal(affine, expected.affine)
    np.testing.assert_array_equal(voxels, expected.get_fdata(dtype=np.float32))


def test_the_model_and_its_parameters_are_listed(server):
    info = requests.get(f"{server}/info/", timeout=30).json()
    model = info["models"]["hftn_sr"]
    assert model["type"] == "others"
    assert model["config"]["scale"] == ["auto", "2", "4"]
    assert model["config"]["weights"][0] == "base"
    assert list(info["trainers"]) == ["hftn_sr"]


def test_voxels_by_name_rule_are_those_of_the_command_line(infer, expected, place):
    answer = infer()
    assert_same(answer, expected, place)
    assert "p03_FLAIR_sr_" in answer.headers["content-disposition"]


@pytest.mark.parametrize("reference", ["p03_T2W", "p03_T2W.nii.gz", "absolute"])
def test_voxels_by_id_and_by_path_are_those_of_the_command_line(infer, expected, place, reference):
    asked = str(place / "images/p03_T2W.nii.gz") if reference == "absolute" else reference
    assert_same(infer("p04_FLAIR", reference=asked), expected, place)


def test_another_name_rule_and_the_clients_own_table_of_choices(infer, expected, place):
    answer = infer(names="*3_FLAIR=*3_T2W", weights=["base", "hftn"], register=["none", "rigid"], device="cuda", result_extension=".nrrd")
    assert_same(answer, expected, place)


def test_two_uploaded_images_are_a_pair(server, infer, expected, place):
    names = {"target.nii.gz": "p03_FLAIR.nii.gz", "reference.nii.gz": "p03_T2W.nii.gz"}
    files = [("files", (name, (place / "images" / source).read_bytes())) for name, source in names.items()]
    session = requests.put(f"{server}/session/", files=files, timeout=60).json()["session_id"]
    assert_same(infer("", query=f"&session_id={session}"), expected, place)
    assert requests.delete(f"{server}/session/{session}", timeout=30).status_code == 200


def test_the_record_comes_as_json(infer):
    answer = infer(output="json", device="cuda").json()
    assert answer["reference"] == {"file": "p03_T2W.nii.gz", "found": "by name rule, p03_T2W"}
    assert answer["record"]["scale"] == 2
    assert torch.cuda.is_available() or "device cuda was asked for, there is none: computed on the CPU" in answer["warnings"]


WRONG = {
    "wrong ID": ({"image": "nobody"}, 404, "nobody: is no ID and no file of the datastore (image). Fix: "),
    "wrong reference ID": ({"reference": "nobody"}, 404, "nobody: is no ID and no file of the datastore (reference). Fix: "),
    "missing reference": ({"image": "p04_FLAIR"}, 404, "p04_FLAIR: no reference by its name (searched p04_T2W, p04_T2w). Fix: "),
    "target outside": ({"image": "/etc/passwd"}, 403, "/etc/passwd: outside of the datastore. Fix: "),
    "reference outside": ({"reference": "../secret_T2W.nii.gz"}, 403, "../secret_T2W.nii.gz: outside of the datastore. Fix: "),
    "same image": ({"reference": "p04_FLAIR"}, 422, "is the same image as the target. Fix: "),
    "scale": ({"scale": 3}, 400, "scale: '3' is not known (need one of auto, 2, 4). Fix: "),
    "weights": (
        {"weights": "/etc/passwd"},
        400,
        "weights: '/etc/passwd' is not known (need one of base, correspondence, hftn, small). Fix: ",
    ),
    "misspelt": ({"refrence": "p03_T2W"}, 400, "refrence: is not a parameter. Fix: "),
    "names": ({"names": "FLAIR"}, 400, "names: 'FLAIR' is no rule"),
}


@pytest.mark.parametrize(("request_", "status", "text"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_one_clear_line(infer, request_, status, text):
    answer = infer(**request_)
    assert answer.status_code == status
    assert text in answer.json()["detail"]
    assert "Traceback" not in answer.text
    assert "\n" not in answer.json()["detail"]


def test_no_such_model(server):
    answer = requests.post(f"{server}/infer/other?image=p03_FLAIR", timeout=30)
    assert (answer.status_code, answer.json()["detail"]) == (404, "other: no such model (there is hftn_sr). Fix: POST /infer/hftn_sr.")


def test_a_saved_result_is_not_written_over_unless_asked(server, infer, expected, place):
    saved = place / "images/labels/original/p04_FLAIR.nii.gz"
    request = {"image": "p04_FLAIR", "reference": "p03_T2W", "save_label": True, "output": "json"}
    assert infer(**request).status_code == 200
    np.testing.assert_array_equal(nib.load(saved).get_fdata(dtype=np.float32), expected.get_fdata(dtype=np.float32))
    saved.write_bytes(b"a person's work")
    refused = infer(**request)
    assert (refused.status_code, saved.read_bytes()) == (409, b"a person's work")
    assert infer(**request, overwrite=True).status_code == 200
    assert saved.stat().st_size > 100_000


def test_the_next_sample_and_a_batch_are_targets_that_have_a_reference(server, place):
    sample = requests.post(f"{server}/activelearning/next_target", json={}, timeout=30).json()
    assert sample["id"] == "p01_FLAIR"
    options = {"names": "*2_FLAIR=*2_FLAIR_, *1_FLAIR=*1_T2W, *3_FLAIR=*3_T2W", "label_tag": "batch"}
    answer = requests.post(f"{server}/batch/infer/hftn_sr?run_sync=true", json=options, timeout=300)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert list(result) == ["p01_FLAIR", "p03_FLAIR"]
    assert "nothing to gain: its voxels of 0.8 x 0.8 x 4 mm" in result["p01_FLAIR"]["error"]
    assert [path.name for path in (place / "images/labels/batch").iterdir()] == ["p03_FLAIR.nii.gz"]


def test_a_run_of_training_is_stopped_goes_on_and_its_weights_are_used(server, infer, place):
    run = place / "bundle/label_app/model/runs/tiny"

    def wait(until):
        for _ in range(900):
            task = requests.get(f"{server}/train/", timeout=30).json()
            if until(task):
                return task
            time.sleep(1)
        raise AssertionError(task)

    assert requests.post(f"{server}/train/hftn_sr", json=TINY, timeout=30).json()["status"] == "SUBMITTED"
    wait(lambda task: (run / "latest.pt").exists() or task["status"] in ("DONE", "ERROR"))
    assert requests.delete(f"{server}/train/", timeout=30).json()["status"] == "STOPPED"
    done = torch.load(run / "latest.pt", weights_only=True)["epoch"]
    assert 1 <= done < TINY["epochs"]

    requests.post(f"{server}/train/hftn_sr", json=TINY, timeout=30)
    task = wait(lambda task: task["status"] in ("DONE", "ERROR"))
    details = "\n".join(task["details"])
    assert task["status"] == "DONE", details
    assert torch.load(run / "latest.pt", weights_only=True)["epoch"] == TINY["epochs"]
    assert "epoch 3/3" in details
    assert f"epoch {done}/3: mean loss" not in details  # it went on, it did not begin again
    assert "p03_FLAIR: in-plane voxels are 2.13 times those of p03_T2W" in details
    sections = json.loads((run / "datalist.json").read_text())
    assert sorted(case["case"] for section in ("training", "validation") for case in sections[section]) == ["p01_FLAIR", "p02_FLAIR"]

    own = infer(weights="run:tiny", output="json").json()
    assert own["record"]["model"]["file"] == "best.safetensors"
    assert requests.get(f"{server}/info/", timeout=30).json()["train_stats"]["hftn_sr"]["runs"]["tiny"]["weights"] is True

    other = requests.post(f"{server}/train/hftn_sr?run_sync=true", json={**TINY, "epochs": 4}, timeout=120)
    assert other.status_code == 400
    assert "run tiny: was begun with epochs 3, now 4. Fix: " in other.json()["detail"]


def test_a_training_that_cannot_begin_says_why_in_its_status(server):
    requests.post(f"{server}/train/hftn_sr", json={**TINY, "run": "other", "names": "*_A=*_B"}, timeout=30)
    for _ in range(300):
        task = requests.get(f"{server}/train/", timeout=30).json()
        if task["status"] in ("DONE", "ERROR"):
            break
        time.sleep(1)
    assert task["status"] == "ERROR"
    assert "ERROR datastore: no pair of high-resolution images in it (searched *_A with *_B). Fix: " in task["details"][-1]


def test_two_apps_in_one_process_do_not_clash(place, tmp_path):
    other = tmp_path / "other"
    (other / "lib").mkdir(parents=True)
    (other / "lib" / "__init__.py").write_text("NAME = 'other'\n")
    own = "super().__init__(app_dir, studies, conf, name=lib.NAME)"
    app = "import lib\nfrom monailabel.interfaces.app import MONAILabelApp\n\n\nclass App(MONAILabelApp):\n"
    (other / "main.py").write_text(f"{app}    def __init__(self, app_dir, studies, conf):\n        {own}\n")
    copy = unpack(tmp_path / "copy") / "label_app"
    paths = (place / "bundle/label_app", other, copy, place / "images")
    done = subprocess.run(
        [sys.executable, "-c", TWO_APPS, *map(str, paths)], env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_no_traceback_reached_the_log(place):
    log = (place / "server.log").read_text()
    assert "refused: nobody: is no ID" in log
    assert "Traceback" not in log
