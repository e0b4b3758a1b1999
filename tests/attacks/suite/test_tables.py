"""The suite over tables: columns leak as features do."""

from pathlib import Path

import numpy as np

from attacks.attack import ATTACKS
from attacks.suite import run as suite
from attacks.suite.config import make_config

DICTIONARY = """
target = "ill"
[columns.age]
type = "number"
range = [0, 100]
[columns.dose]
type = "number"
range = [0, 1]
[columns.ill]
type = "category"
categories = ["no", "yes"]
"""


def test_whoever_has_a_site_s_sums_alone_has_its_counts_and_members(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "dictionary.toml").write_text(DICTIONARY)
    for name in ("a", "b", "c"):
        rows = [
            f"{rng.integers(0, 101)},{rng.uniform():.3f},{('no', 'yes')[rng.integers(2)]}"
            for _ in range(12)
        ]
        (tmp_path / f"{name}.csv").write_text("age,dose,ill\n" + "\n".join(rows) + "\n")
    names = ("class-counts", "client-statistics", "differencing", "membership-leverage")
    config = make_config(
        {"clients": str(tmp_path / "*.csv"), "dictionary": str(tmp_path / "dictionary.toml")},
        {"attacks": names, "protocols": ("plain", "additive"), "methods": ("afl",)},
        quick=True,
    )
    results = suite.run(config, ATTACKS, tmp_path / "out")
    assert {cell.attack for cell in results.cells} == set(names)
    assert all(cell.error is None or cell.refused for cell in results.cells)
    found = {
        (cell.protocol, cell.attack): [measure.value for measure in cell.measures]
        for cell in results.cells
        if cell.adversary in ("server", "collector") and cell.measures
    }
    assert found["plain", "client-statistics"][0] == 1.0
    assert found["additive", "client-statistics"][0] == 0.0
    assert found["additive", "class-counts"][0] == 1.0
