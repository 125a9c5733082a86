from comparison.colours import COLOURS
from hftn_sr.networks import METHODS


def test_every_method_has_a_colour_of_its_own():
    assert set(COLOURS) == set(METHODS)
    assert len(set(COLOURS.values())) == len(METHODS)
