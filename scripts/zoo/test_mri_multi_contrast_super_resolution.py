# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Unit test in the form of the MONAI Model Zoo, there ci/unit_tests/: every workflow of the bundle runs on made-up pairs.

Run from a folder that holds models/mri_multi_contrast_super_resolution, with that folder and the bundle's on PYTHONPATH.
"""

import json
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow

BUNDLE = "models/mri_multi_contrast_super_resolution"
sys.path.insert(0, BUNDLE)
TINY = {"options": {"channels": 16}, "epochs": 1, "epoch_cases": 4, "crop_size": 32, "val_interval": 1, "validation_slices": 2}


def ellipses(shape: tuple[int, ...], contrast: tuple[int, ...]) -> np.ndarray:
    """A head of nested ellipses, whose tissues have the intensities of `contrast`, with the same noise in every call."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    radius = np.hypot(x / 0.8, y / 0.9)
    image = np.select([radius < 0.3, radius < 0.6, radius < 1], contrast, 0).astype(np.float32)
    noise = np.random.default_rng(0).uniform(0, 10, shape)
    return (image[..., None] + noise).astype(np.float32)


def half_resolution(image: np.ndarray) -> np.ndarray:
    """`image` (64, 64, D) as a scanner measures it that covers the middle half of each in-plane axis of k-space."""
    kspace = np.fft.fftshift(np.fft.fft2(image, axes=(0, 1)), axes=(0, 1))[16:48, 16:48]
    return np.abs(np.fft.ifft2(np.fft.ifftshift(kspace, axes=(0, 1)), axes=(0, 1)) / 4).astype(np.float32)


class TestMultiContrastSuperResolution(unittest.TestCase):
    """Training, evaluation of what was trained, and inference with the shipped weights."""

    def setUp(self) -> None:
        """Two pairs at full resolution with a datalist, and one case whose target has half of it."""
        self.folder = Path(tempfile.mkdtemp())
        affine, coarse = np.diag([1.0, 1.0, 3.0, 1.0]), np.diag([2.0, 2.0, 3.0, 1.0])
        target, reference = (ellipses((64, 64, 4), contrast) for contrast in ((300, 500, 200), (600, 200, 400)))
        (self.folder / "cases" / "one").mkdir(parents=True)
        for name, data, grid in (
            ("target.nii.gz", target, affine),
            ("reference.nii.gz", reference, affine),
            ("cases/one/target.nii.gz", half_resolution(target), coarse),
            ("cases/one/reference.nii.gz", reference, affine),
        ):
            nib.save(nib.Nifti1Image(data, grid), self.folder / name)
        lists = {}
        for section in ("training", "validation", "testing"):  # copies: no file may stand in two sections
            names = {role: f"{section}_{role}.nii.gz" for role in ("target", "reference")}
            lists[section] = [{"case": section, **names}]
            for role, name in names.items():
                shutil.copy(self.folder / f"{role}.nii.gz", self.folder / name)
        (self.folder / "datalist.json").write_text(json.dumps(lists))

    def tearDown(self) -> None:
        """Remove the pairs and the results."""
        shutil.rmtree(self.folder)

    def check(self, configs: list[str], workflow_type: str, **override: object) -> None:
        """Initialize, check the properties, run and finalize a workflow."""
        workflow = ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=[f"{BUNDLE}/configs/{name}.json" for name in configs],
            logging_file=f"{BUNDLE}/configs/logging.conf",
            meta_file=f"{BUNDLE}/configs/metadata.json",
            bundle_root=BUNDLE,
            **override,
        )
        workflow.initialize()
        self.assertEqual(workflow.check_properties(), [])
        workflow.run()
        workflow.finalize()

    def test_train_eval_config(self) -> None:
        """A tiny network is trained and what was trained is scored."""
        run = self.folder / "run"
        override = {"dataset_dir": str(self.folder), "output_dir": str(run), **TINY}
        self.check(["train"], "train", **override)
        self.assertTrue((run / "best.safetensors").is_file())
        self.check(["train", "evaluate"], "train", weights=str(run / "best.safetensors"), **override)

    def test_infer_config(self) -> None:
        """The shipped weights give the case back at full resolution."""
        self.check(["inference"], "infer", dataset_dir=str(self.folder / "cases"), output_dir=str(self.folder / "results"))
        result = nib.load(self.folder / "results" / "one" / "target_sr.nii.gz")
        truth = nib.load(self.folder / "target.nii.gz")
        self.assertEqual(result.shape, truth.shape)
        np.testing.assert_allclose(result.affine, truth.affine, atol=1e-5)
        self.assertGreater(np.corrcoef(result.get_fdata().ravel(), truth.get_fdata().ravel())[0, 1], 0.95)


if __name__ == "__main__":
    unittest.main()
