"""The XML header of an ISMRMRD scan: sizes of the image in voxels and mm, and how it was measured.

Source: Inati et al. 2017, doi 10.1002/mrm.26089.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

__all__ = ["ScanHeader", "scan_header"]

LARGEST_HEADER = 1 << 20  # bytes; the header of a knee scan has some ten thousand
# Name in the side file as BIDS has it, element of the header, factor to the unit of BIDS (s, degrees, tesla); None for a text.
SCAN = (
    ("RepetitionTime", "sequenceParameters/{*}TR", 1e-3),
    ("EchoTime", "sequenceParameters/{*}TE", 1e-3),
    ("InversionTime", "sequenceParameters/{*}TI", 1e-3),
    ("FlipAngle", "sequenceParameters/{*}flipAngle_deg", 1.0),
    ("PulseSequenceType", "sequenceParameters/{*}sequence_type", None),
    ("MagneticFieldStrength", "acquisitionSystemInformation/{*}systemFieldStrength_T", 1.0),
    ("Manufacturer", "acquisitionSystemInformation/{*}systemVendor", None),
    ("ManufacturersModelName", "acquisitionSystemInformation/{*}systemModel", None),
    ("PatientPosition", "measurementInformation/{*}patientPosition", None),
)


@dataclass(frozen=True)
class ScanHeader:
    """What the header says of the image.

    Args:
        matrix: (3,) voxels along x, y, z of reconSpace; x are the rows of a fastMRI image.
        field_of_view: (3,) mm along x, y, z of reconSpace.
        scan: how it was measured, by the names and in the units of BIDS; nothing that identifies who or where.
    """

    matrix: NDArray[np.float64]
    field_of_view: NDArray[np.float64]
    scan: dict[str, str | float]

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,) voxel sizes in mm."""
        return self.field_of_view / self.matrix


def scan_header(content: bytes) -> ScanHeader:
    """Read a header.

    Raises:
        ValueError: in words, not XML, too long, or no sizes in it that could be.
    """
    if len(content) > LARGEST_HEADER or b"<!DOCTYPE" in content:
        raise ValueError("too long, or with a document type, whose entities could be made to fill the memory")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    matrix, field_of_view = (np.array([_number(root, name, axis) for axis in "xyz"]) for name in ("matrixSize", "fieldOfView_mm"))
    if not np.isfinite([matrix, field_of_view]).all() or matrix.min() < 1 or field_of_view.min() <= 0:
        raise ValueError(f"sizes {matrix.tolist()}, {field_of_view.tolist()}")
    return ScanHeader(matrix, field_of_view, _scan(root))


def _number(root: ElementTree.Element, name: str, axis: str) -> float:
    """Of the first encoding; fastMRI has no other."""
    text = root.findtext(f".//{{*}}reconSpace/{{*}}{name}/{{*}}{axis}")
    if text is None:
        raise ValueError(f"no reconSpace/{name}/{axis}")
    return float(text)


def _scan(root: ElementTree.Element) -> dict[str, str | float]:
    found: dict[str, str | float] = {}
    for name, element, factor in SCAN:
        text = (root.findtext(f".//{{*}}{element}") or "").strip()
        try:
            value = text if factor is None else round(float(text) * factor, 9)
        except ValueError:
            continue  # a figure that is none helps nobody
        if value and (isinstance(value, str) or np.isfinite(value)):
            found[name] = value
    return found
