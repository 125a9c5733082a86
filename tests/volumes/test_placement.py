import itk
import numpy as np
import pytest

from hftn_sr.errors import Fault
from hftn_sr.volumes.placement import read_transform, similarity
from hftn_sr.volumes.volume import Volume
from phantoms import oblique

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
HEADER = "#Insight Transform File V1.0\n#Transform 0\n"
POINT = np.array([11.0, -7.0, 5.0, 1.0])  # RAS+, mm


def euler(rotation=(0.1, -0.2, 0.3), translation=(4.0, 5.0, -6.0), centre=(30.0, -20.0, 10.0)):
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetCenter(list(centre))
    transform.SetRotation(*rotation)
    transform.SetTranslation(list(translation))
    return transform


def mapped_by_itk(transform, point):
    return LPS_TO_RAS @ [*transform.TransformPoint((LPS_TO_RAS @ point)[:3].tolist()), 1.0]


def text(folder, name, parameters, fixed):
    path = folder / "placement.txt"
    path.write_text(f"{HEADER}Transform: {name}\nParameters: {parameters}\nFixedParameters: {fixed}\n", encoding="utf-8")
    return path


def cube(data, spacing=2.0):
    return Volume(np.asarray(data, dtype=np.float32), np.diag([spacing, spacing, spacing, 1.0]))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(3).normal(size=(24, 26, 28))


@pytest.mark.parametrize("suffix", ["txt", "tfm", "mat", "h5"])
def test_a_rotation_about_a_centre_off_the_origin_maps_points_as_itk_does(tmp_path, suffix):
    itk.transformwrite([euler()], str(tmp_path / f"placement.{suffix}"))
    np.testing.assert_allclose(read_transform(tmp_path / f"placement.{suffix}") @ POINT, mapped_by_itk(euler(), POINT), atol=1e-6)


@pytest.mark.parametrize("suffix", ["txt", "mat", "h5"])
def test_the_base_class_of_the_linear_transforms_is_read_although_itk_for_python_does_not(tmp_path, suffix):
    transform = itk.MatrixOffsetTransformBase[itk.D, 3, 3].New()
    transform.SetCenter([9.0, 8.0, 7.0])
    transform.SetMatrix(itk.matrix_from_array(np.array([[1.0, 0.1, 0.0], [0.0, 0.9, 0.2], [0.0, 0.0, 1.1]])))
    transform.SetTranslation([1.0, 2.0, 3.0])
    itk.transformwrite([transform], str(tmp_path / f"placement.{suffix}"))
    np.testing.assert_allclose(read_transform(tmp_path / f"placement.{suffix}") @ POINT, mapped_by_itk(transform, POINT), atol=1e-6)


def test_fixed_parameters_are_the_centre_of_rotation(tmp_path):
    path = text(tmp_path, "MatrixOffsetTransformBase_double_3_3", "0 -1 0 1 0 0 0 0 1 4 5 6", "10 20 30")
    centre_lps = LPS_TO_RAS @ [10.0, 20.0, 30.0, 1.0]
    np.testing.assert_allclose(read_transform(path) @ centre_lps, LPS_TO_RAS @ [14.0, 25.0, 36.0, 1.0])


def test_a_translation_to_the_patients_left_is_negative_in_ras(tmp_path):
    path = text(tmp_path, "TranslationTransform_double_3_3", "3 0 0", "")
    np.testing.assert_allclose(read_transform(path)[:3, 3], [-3.0, 0.0, 0.0])


@pytest.mark.parametrize("suffix", ["txt", "h5"])
def test_a_composite_applies_its_last_transform_first(tmp_path, suffix):
    composite = itk.CompositeTransform[itk.D, 3].New()
    composite.AddTransform(euler())
    composite.AddTransform(euler(rotation=(0.0, 0.5, 0.0), translation=(1.0, 0.0, 9.0)))
    itk.transformwrite([composite], str(tmp_path / f"placement.{suffix}"))
    np.testing.assert_allclose(read_transform(tmp_path / f"placement.{suffix}") @ POINT, mapped_by_itk(composite, POINT), atol=1e-6)


def test_a_deformable_transform_is_refused(tmp_path):
    itk.transformwrite([itk.BSplineTransform[itk.D, 3, 3].New()], str(tmp_path / "placement.h5"))
    with pytest.raises(Fault, match=r"placement\.h5: BSplineTransform is not a linear .* Fix: resample the reference"):
        read_transform(tmp_path / "placement.h5")


def test_a_transform_of_2d_points_is_refused(tmp_path):
    with pytest.raises(Fault, match="Euler2DTransform is not a linear transform of 3D points"):
        read_transform(text(tmp_path, "Euler2DTransform_double_2_2", "0 0 0", "0 0"))


def test_a_file_with_two_transforms_is_refused(tmp_path):
    itk.transformwrite([euler(), euler()], str(tmp_path / "placement.tfm"))
    with pytest.raises(Fault, match="expected one transform or one composite, got 2"):
        read_transform(tmp_path / "placement.tfm")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(Fault, match="no such transform file"):
        read_transform(tmp_path / "none.txt")


@pytest.mark.parametrize("suffix", ["txt", "mat", "h5"])
@pytest.mark.parametrize("content", [b"", b"hello there", HEADER.encode(), HEADER.encode() + b"Transform: WobbleTransform_double_3_3\n"])
def test_garbage_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"placement.{suffix}"
    path.write_bytes(content)
    with pytest.raises(Fault, match="placement"):
        read_transform(path)


@pytest.mark.parametrize("suffix", ["txt", "mat", "h5"])
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8, 0.93])
def test_a_truncated_file_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"placement.{suffix}"
    itk.transformwrite([euler()], str(path))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(Fault, match="placement"):
        read_transform(path)


@pytest.mark.parametrize("parameters", ["0 0 0 0 1 0 0 0 1 4 5 6", "nan 0 0 0 1 0 0 0 1 4 5 6", "inf 0 0 0 1 0 0 0 1 4 5 6"])
def test_a_matrix_without_inverse_is_refused(tmp_path, parameters):
    with pytest.raises(Fault, match="placement"):
        read_transform(text(tmp_path, "AffineTransform_double_3_3", parameters, "0 0 0"))


def test_a_volume_is_most_similar_to_itself(noise):
    assert similarity(cube(noise), cube(noise)) == pytest.approx(2.0)


def test_an_inverted_contrast_is_as_similar_as_the_same_one(noise):
    tissues = np.digitize(noise, [-1, 0, 1])
    assert similarity(cube(tissues), cube(-tissues)) == pytest.approx(2.0)


def test_independent_volumes_share_next_to_nothing():
    other = np.random.default_rng(4).normal(size=(60, 60, 60))
    assert similarity(cube(np.random.default_rng(5).normal(size=(60, 60, 60))), cube(other)) < 1.01


def test_volumes_without_overlap_or_without_contrast_have_the_lowest_similarity(noise):
    far = cube(noise).moved(np.array([[1, 0, 0, 500], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]))
    assert similarity(cube(noise), far) == 1.0
    assert similarity(cube(noise), cube(np.ones_like(noise))) == 1.0
    assert similarity(cube(np.ones_like(noise)), cube(np.ones_like(noise))) == 1.0


def test_an_oblique_single_slice_is_as_similar_as_the_straight_one(noise):
    """Rounding puts some of its voxels at index -1e-16 or 1e-12 of the other, and a slice through a slice is never at index 0 exactly."""
    data = noise[:, :, :1].repeat(3, 0).repeat(3, 1).astype(np.float32)
    affine = oblique((1, 1, 5), (8.0, -5.0, 12.0), data.shape)
    beside = affine.copy()
    beside[:3, 3] += 0.3 * affine[:3, 2]
    for other in (affine @ np.linalg.inv(affine) @ affine, beside):
        assert similarity(Volume(data, affine), Volume(data**2, other)) > 1.2
    beside[:3, 3] += affine[:3, 2]
    assert similarity(Volume(data, affine), Volume(data**2, beside)) == 1.0


def test_similarity_follows_the_headers_and_not_the_array_order(noise):
    turned = Volume(np.flip(noise, 0).astype(np.float32), np.array([[-2, 0, 0, 46], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1.0]]))
    assert similarity(cube(noise), turned) == pytest.approx(2.0)


def test_similarity_repeats_exactly_and_leaves_the_global_random_state(noise):
    large = cube(np.random.default_rng(6).normal(size=(64, 64, 64)))
    state = np.random.get_state()[1].copy()
    assert similarity(large, cube(noise)) == similarity(large, cube(noise))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
