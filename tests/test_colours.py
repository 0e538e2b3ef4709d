"""Colours under colour blindness and in grey print: simulated, for the light figures and for those on a dark ground.

Simulation: Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009), the matrices of full severity (1.0), in linear RGB.
Differences: CIE 1976 Delta E in L*a*b* under D65; 2.3 is just noticeable (Mahy et al., Color Res. Appl. 19, 1994).
"""

import itertools

import numpy as np
import pytest

from welltuned.figures import _ink
from welltuned.report.css import DARK_INK

MATRICES = {  # Machado et al., table of severity 1.0
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LEAST_DIFFERENCE = 11.0  # between any two methods: nearly five times what is just noticeable
LEAST_OF_THREE = 15.0  # between the first three, which most studies have
GROUNDS = {"light": _ink.COLOURS, "dark": tuple(DARK_INK[colour.lower()] for colour in _ink.COLOURS)}
PAPERS = {"light": _ink.PAPER, "dark": DARK_INK[_ink.PAPER]}


def linear(colour: str) -> np.ndarray:
    """Return linear RGB of an sRGB colour (IEC 61966-2-1)."""
    values = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ np.clip(rgb, 0, 1) / (to_xyz @ np.ones(3))
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def seen(colour: str, kind: str) -> np.ndarray:
    """Return a colour as somebody of this kind sees it."""
    return lab(np.asarray(MATRICES[kind]) @ linear(colour))


def differences(colours, kind: str) -> list[float]:
    """Return Delta E of every two colours."""
    return [
        float(np.linalg.norm(seen(one, kind) - seen(other, kind))) for one, other in itertools.combinations(colours, 2)
    ]


def test_the_measure_is_that_of_known_colours():
    assert lab(linear("#ffffff")) == pytest.approx([100, 0, 0], abs=0.02)
    assert lab(linear("#ff0000")) == pytest.approx([53.24, 80.09, 67.20], abs=0.05)  # Lindbloom's calculator
    for matrix in MATRICES.values():  # grey stays grey
        assert np.asarray(matrix).sum(1) == pytest.approx(np.ones(3), abs=1e-5)


def test_the_simulation_would_show_a_bad_palette():
    """Red and green of one lightness, which a deuteranope confuses."""
    pair = ("#c96a2b", "#8b8b20")
    assert differences(pair, "normal")[0] > 30 and differences(pair, "deuteranopia")[0] < LEAST_DIFFERENCE


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("ground", GROUNDS)
def test_any_two_methods_stay_apart_whatever_one_sees(ground, kind):
    colours = GROUNDS[ground]
    assert min(differences(colours, kind)) >= LEAST_DIFFERENCE
    assert min(differences(colours[:3], kind)) >= LEAST_OF_THREE
    paper = seen(PAPERS[ground], kind)
    assert min(float(np.linalg.norm(seen(colour, kind) - paper)) for colour in colours) >= 25


@pytest.mark.parametrize("ground", GROUNDS)
def test_in_grey_print_lines_are_seen_on_their_paper_and_markers_tell_what_lightness_does_not(ground):
    """Seven colours cannot all differ in lightness; where two are within 10 of L*, their markers differ."""
    light = [seen(colour, "normal")[0] for colour in GROUNDS[ground]]
    paper = seen(PAPERS[ground], "normal")[0]
    assert min(abs(one - paper) for one in light) >= 25
    methods = [str(number) for number in range(len(_ink.COLOURS))]
    looks = _ink.looks([(method, method) for method in methods])
    near = [pair for pair in itertools.combinations(methods, 2) if abs(light[int(pair[0])] - light[int(pair[1])]) < 10]
    assert near and all(looks[one].marker != looks[other].marker for one, other in near)
