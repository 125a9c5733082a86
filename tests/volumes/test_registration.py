import os
import signal
import threading
import time

import nibabel
import numpy as np
import pytest

from hftn_sr.volumes import registration
from hftn_sr.volumes.placement import read_transform, similarity
from hftn_sr.volumes.registration import Registration, register_rigid
from hftn_sr.volumes.volume import Volume

FAR = np.array([[1.0, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def rigid(axis, degrees, translation, centre):
    """(4, 4) rotation about an axis through the centre, then a translation, RAS+ mm."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + translation
    return matrix


def difference(found, truth, centre):
    """Distance in mm at the centre and angle in degrees between two placements."""
    apart = found @ np.linalg.inv(truth)
    nearest = np.linalg.svd(apart[:3, :3])
    cosine = (np.trace(nearest[0] @ nearest[2]) - 1) / 2
    return np.linalg.norm((found - truth) @ [*centre, 1.0]), np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))


def phantom(shape, spacing, contrast):
    """A head-sized ellipsoid of smooth random tissue, sampled on a grid about the origin."""
    generator = np.random.default_rng(11)
    waves = generator.normal(size=(40, 3)) * 0.12  # radians per mm: detail of some 2 to 10 cm
    phases = generator.uniform(0, 2 * np.pi, 40)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.multiply(spacing, np.subtract(shape, 1)) / 2
    place = np.indices(shape).reshape(3, -1).T * spacing + affine[:3, 3]
    tissue = np.cos(place @ waves.T + phases).sum(axis=1) / 6
    inside = ((place / [60, 75, 60]) ** 2).sum(axis=1) < 1
    return Volume((inside * contrast(tissue)).reshape(shape).astype(np.float32), affine)


@pytest.fixture(scope="module")
def target():
    return phantom((72, 84, 30), (2.0, 2.0, 4.0), lambda tissue: 400 + 100 * tissue)


@pytest.fixture(scope="module")
def reference():
    return phantom((110, 120, 36), (1.3, 1.5, 4.2), lambda tissue: 900 + 200 * np.sin(2 * tissue))


@pytest.mark.parametrize("axis, degrees, translation", [((1, 2, 3), 6.0, (5.0, -5.0, 3.0)), ((-1, 1, 0), 4.0, (-2.0, 3.0, 7.0))])
def test_a_known_motion_is_recovered_across_contrasts_and_grids(target, reference, axis, degrees, translation):
    motion = rigid(axis, degrees, translation, np.zeros(3))
    found = register_rigid(target, reference.moved(np.linalg.inv(motion)))
    distance, angle = difference(found.matrix, motion, np.zeros(3))
    assert found.kept
    assert found.similarity_after > found.similarity_before
    assert distance < 0.3
    assert angle < 0.3


def test_an_aligned_pair_stays_where_it_is(target, reference):
    distance, angle = difference(register_rigid(target, reference).matrix, np.eye(4), np.zeros(3))
    assert distance < 0.1
    assert angle < 0.1


def test_the_result_repeats_exactly(target, reference):
    moved = reference.moved(rigid((0, 0, 1), 3.0, (2.0, 1.0, 0.0), np.zeros(3)))
    np.testing.assert_array_equal(register_rigid(target, moved).matrix, register_rigid(target, moved).matrix)


def test_what_makes_the_pair_less_alike_is_not_kept(target):
    found = register_rigid(target, target)
    assert found.similarity_before == pytest.approx(2.0)
    assert not found.kept
    np.testing.assert_array_equal(found.matrix, np.eye(4))


@pytest.mark.parametrize("change", [lambda volume: volume.moved(FAR), lambda volume: volume.on(volume.grid, np.ones_like(volume.data))])
def test_without_overlap_or_contrast_nothing_is_moved(target, reference, change):
    found = register_rigid(target, change(reference))
    assert not found.kept
    np.testing.assert_array_equal(found.matrix, np.eye(4))


def test_a_single_slice_does_not_break_the_registration(target, reference):
    middle = target.on(target.grid.cropped((0, 0, 15), (72, 84, 1)), target.data[:, :, 15:16])
    assert np.isfinite(register_rigid(middle, reference).matrix).all()


def test_translation_and_rotation_are_told_at_the_targets_centre():
    centre = np.array([100.0, -50.0, 20.0])
    told = Registration(rigid((0, 1, 0), 5.0, (3.0, 0.0, 4.0), centre), 1.1, 1.2, True, centre)
    assert told.translation == pytest.approx(5.0)
    assert told.rotation == pytest.approx(5.0)


@pytest.fixture
def raw(mirror):
    return mirror / "longitudinal" / "raw"


def loaded(path):
    image = nibabel.load(path)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), image.affine)


def coarser(volume, factor):
    """The volume with fewer in-plane voxels, as averages; slices along the last axis."""
    x, y, z = volume.data.shape
    data = volume.data.reshape(x // factor, factor, y // factor, factor, z).mean(axis=(1, 3))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :2].sum(axis=1) * (factor - 1) / 2
    affine[:3, :2] *= factor
    return Volume(data, affine)


def centre_of(volume):
    return volume.affine[:3, :3] @ (np.array(volume.data.shape) / 2) + volume.affine[:3, 3]


def test_a_real_patient_that_moved_is_put_where_the_published_transform_puts_it(raw):
    flair = loaded(raw / "patient03" / "study2_FLAIR.nii.gz")
    published = read_transform(raw / "patient03" / "study2_T1W_intrastudy_to_FLAIR.txt")
    found = register_rigid(flair, loaded(raw / "patient03" / "study2_T1W.nii.gz"))
    distance, angle = difference(found.matrix, published, centre_of(flair))
    assert found.kept
    assert distance < 0.5
    assert angle < 0.5


@pytest.mark.parametrize("factor", [1, 4])
def test_a_motion_added_to_a_real_pair_is_recovered_at_full_and_at_low_resolution(raw, factor):
    flair = coarser(loaded(raw / "patient01" / "study2_FLAIR.nii.gz"), factor)
    published = read_transform(raw / "patient01" / "study2_T2W_intrastudy_to_FLAIR.txt")
    aligned = loaded(raw / "patient01" / "study2_T2W.nii.gz").moved(published)
    motion = rigid((2, -1, 1), 6.0, (5.0, 4.0, -4.0), centre_of(flair))
    moved = aligned.moved(np.linalg.inv(motion))
    found = register_rigid(flair, moved)
    distance, angle = difference(found.matrix, motion, centre_of(flair))
    assert found.similarity_after == similarity(flair, moved.moved(found.matrix)) > found.similarity_before
    assert distance < 0.5
    assert angle < 0.5


def test_a_registration_hears_a_signal(target, reference, monkeypatch):
    """Ctrl-C comes while SimpleITK computes: the registration stops at its next step, and nothing of it goes on."""
    monkeypatch.setattr(registration, "LEVELS", ((1.0, False, 1e-4),))
    large = Volume(target.data.repeat(2, 0).repeat(2, 1).repeat(4, 2), target.affine @ np.diag([0.5, 0.5, 0.25, 1.0]))
    execute, sent = registration.sitk.ImageRegistrationMethod.Execute, []

    def interrupt():
        sent.append(time.process_time())  # what another program takes of the machine does not count
        os.kill(os.getpid(), signal.SIGINT)

    def interrupted(*arguments):
        threading.Timer(0.5, interrupt).start()
        return execute(*arguments)

    monkeypatch.setattr(registration.sitk.ImageRegistrationMethod, "Execute", interrupted)
    running, handler = threading.active_count(), signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            register_rigid(large, reference.moved(rigid((0, 0, 1), 3.0, (5.0, 3.0, 0.0), np.zeros(3))))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.process_time() - sent[0] < 5
    assert threading.active_count() == running
