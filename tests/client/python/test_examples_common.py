"""What the examples share: the digits, the table, the picture."""

import pathlib
import sys
from xml.etree import ElementTree as ET

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "client/python/examples"))
import common


def test_digits():
    digits = common.load_digits()
    assert digits.train_images.shape == (1408, 64)
    assert digits.test_images.shape == (389, 64)
    assert digits.train_images.dtype == np.float32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)
    assert set(digits.test_labels) == set(range(10))
    assert not np.array_equal(common.load_digits(seed=1).train_labels, digits.train_labels)


def test_table(capsys):
    common.print_table(["", "one", "two"], [["first", "1", "22222"], ["x", "100", ""]])
    assert capsys.readouterr().out.splitlines() == [
        "       one    two",
        "first    1  22222",
        "x      100",
    ]


def test_picture(tmp_path):
    curves = {"a & b": [(0, 0.1), (10, float("nan")), (20, 0.995)], "c": [(0, 0.5), (20, 0.5)]}
    scales = ("linear", "log", "accuracy")
    panels = [common.Panel(f"{scale} <title>", "x", curves, scale) for scale in scales]
    common.write_curves_svg(tmp_path / "deep/curves.svg", panels)
    root = ET.parse(tmp_path / "deep/curves.svg").getroot()
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a & b", "c", "linear <title>", "99.5"} <= set(texts)
    with pytest.raises(ValueError, match="at most 6"):
        common.write_curves_svg(tmp_path / "x.svg", [common.Panel("", "", {str(i): [(0, 1)] for i in range(7)})])
    with pytest.raises(ValueError, match="nothing to draw"):
        common.write_curves_svg(tmp_path / "x.svg", [common.Panel("", "", {"a": []})])
