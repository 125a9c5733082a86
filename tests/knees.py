"""Small files of the fastMRI layout: 3 slices of 32 x 24 from k-space of 64 x 36."""

import h5py
import numpy as np

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>64</x><y>36</y><z>1</z></matrixSize>
<fieldOfView_mm><x>280</x><y>180</y><z>3.5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>32</x><y>24</y><z>1</z></matrixSize>
<fieldOfView_mm><x>140</x><y>105</y><z>3.5</z></fieldOfView_mm></reconSpace>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>
"""


def knee(slices=3, seed=0):
    """Magnitude images (slices, 32, 24)."""
    images = np.random.default_rng(seed).uniform(0.1, 1, (slices, 32, 24))
    images[:, 8:24, 6:18] += 1
    return images.astype(np.float32)


def write_knee(path, images, kspace=None, header=HEADER, **attributes):
    """Write `images` and a k-space whose images are these in the middle; `kspace` may be given as images of the whole field of view."""
    if kspace is None:
        phase = np.exp(1j * np.linspace(0, 3, images.shape[2]))  # a scanner's images are complex
        kspace = np.pad(np.nan_to_num(images) * phase, [(0, 0), (16, 16), (6, 6)])
    spectrum = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(kspace, axes=(1, 2)), norm="ortho"), axes=(1, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = spectrum.astype(np.complex64)
        file["reconstruction_esc"] = images
        if header is not None:
            file["ismrmrd_header"] = header
        file.attrs.update({"acquisition": "CORPD_FBK", "max": float(images.max()), **attributes})
    return path


def write_coils(path):
    """A multi-coil file, its images in `reconstruction_rss`; gives the path and the images (3, 32, 24)."""
    coils = np.stack([knee(seed=seed) * np.exp(1j * seed) for seed in range(3)], axis=1)  # (slices, coils, 32, 24)
    images = np.sqrt((np.abs(coils) ** 2).sum(1)).astype(np.float32)
    padded = np.fft.ifftshift(np.pad(coils, [(0, 0), (0, 0), (16, 16), (6, 6)]), axes=(2, 3))
    write_knee(path, images)
    with h5py.File(path, "r+") as file:
        del file["kspace"], file["reconstruction_esc"]
        file["kspace"] = np.fft.fftshift(np.fft.fft2(padded, norm="ortho"), axes=(2, 3)).astype(np.complex64)
        file["reconstruction_rss"] = images
    return path, images
