"""Parameters and multiplications of every method as they were last measured: neither grows unnoticed."""

import pytest

from hftn_sr.networks import METHODS
from hftn_sr.networks.cost import method_cost

COSTS = {  # method: (parameters, multiplications for 320 x 320 voxels) at x2 and at x4
    "zero_filling": ((0, 0), (0, 0)),
    "cubic": ((0, 1638400), (0, 1638400)),
    "edsr": ((1367553, 34991308800), (1515265, 12566937600)),
    "mcsr": ((1406274, 84241612800), (1553986, 73141862400)),
    "neu": ((1925313, 14375321600), (1925313, 14375321600)),
    "minet": ((6710655, 673128484864), (6858367, 674061144064)),
    "msdt": ((533377, 14194329600), (744833, 7781222400)),
    "sanet": ((4599523, 456885886976), (4747235, 457818546176)),
    "early_fusion": ((5990689, 152071409664), (6145313, 41881227264)),
    "ablation_1": ((5488705, 139667070976), (5561217, 36727218176)),
    "ablation_2": ((5488705, 139667070976), (5561217, 36727218176)),
    "ablation_3": ((5325377, 154766565376), (5397889, 36569931776)),
    "paper": ((5612481, 161171842112), (5750593, 40563483712)),
    "hftn": ((2345097, 79134387248), (2424105, 18375756848)),
    "base": ((3944977, 26679705600), (3944977, 26679705600)),
    "small": ((987529, 6704332800), (987529, 6704332800)),
    "ungated": ((3896257, 25971916800), (3896257, 25971916800)),
    "unturned": ((3944977, 26679705600), (3944977, 26679705600)),
}


def test_every_method_is_in_the_table():
    assert set(COSTS) == set(METHODS)


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name in COSTS for scale in (2, 4)])
def test_parameters_and_multiplications_are_those_of_the_table(name, scale):
    parameters, multiplications = COSTS[name][scale == 4]
    cost = method_cost(name, scale)
    assert cost.parameters == parameters
    assert cost.multiplications == pytest.approx(multiplications, rel=1e-3)
