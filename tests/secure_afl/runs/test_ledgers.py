"""Runs with a ledger: it exists or is new, and what fails early leaves no files."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_afl.errors import ConfigError, DataError, LedgerRefusal
from secure_afl.federation.keys import generate
from secure_afl.privacy.ledger import Ledger
from secure_afl.runs.run import run
from secure_afl.runs.settings import make_config


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    folder = tmp_path / "sites"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("north", "south", "west"):
        features = rng.normal(size=(40, 6))
        np.savez(folder / f"{name}.npz", features=features, labels=np.arange(40) % 2)
    return folder


def configured(sites: Path, **settings: Any) -> Any:
    file = str(sites.parent / "ledger.json")
    return make_config({"clients": f"{sites}/*.npz", "ledger": file, **settings})


def test_a_ledger_is_begun_on_purpose_only(sites: Path) -> None:
    with pytest.raises(LedgerRefusal, match="--new-ledger"):
        run(configured(sites))
    run(configured(sites, new_ledger=True))
    with pytest.raises(LedgerRefusal, match="exists; leave out --new-ledger"):
        run(configured(sites, new_ledger=True))
    with pytest.raises(LedgerRefusal, match="another run had an exact release"):
        run(configured(sites))
    north = Ledger.open(sites.parent / "ledger.json").spent(str(sites / "north.npz"))
    assert north.releases == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"min_cohort": 9},
        {"drop": 3},
        {"backbone": "timm:none"},
        {"epsilon": 1.0},
        {"epsilon": 1.0, "max_rows": 64, "budget": 0.5},
        {"epsilon": 1.0, "max_rows": 64, "budget": 9.0, "noise": "central"},
        {"max_rows": 8},
        {"test": "nowhere"},
        {"keys": "nowhere"},
    ],
)
def test_a_run_that_fails_before_its_first_message_makes_no_files(
    sites: Path, settings: dict[str, Any]
) -> None:
    with pytest.raises((ConfigError, DataError, LedgerRefusal)):
        run(configured(sites, new_ledger=True, **settings))
    assert list(sites.parent.iterdir()) == [sites]


def test_a_run_with_broken_data_makes_no_files(sites: Path) -> None:
    np.savez(sites / "north.npz", features=np.full((40, 6), np.nan), labels=np.arange(40) % 2)
    with pytest.raises(DataError):
        run(configured(sites, new_ledger=True))
    assert list(sites.parent.iterdir()) == [sites]


@pytest.mark.parametrize("how", ["copy", "hard link"])
def test_files_under_other_names_are_recognised(sites: Path, how: str) -> None:
    run(configured(sites, new_ledger=True))
    others = sites.parent / "others"
    others.mkdir()
    for file in sites.iterdir():
        (shutil.copy if how == "copy" else os.link)(file, others / file.name)
    with pytest.raises(LedgerRefusal, match=r"40 of 40 rows were in lineage '.*sites/north\.npz'"):
        run(configured(sites, clients=f"{others}/*.npz"))


def test_projected_features_are_recognised_in_half(sites: Path) -> None:
    run(configured(sites, new_ledger=True, dimension=8, backbone="projection:16"))
    half = sites.parent / "half"
    half.mkdir()
    rng = np.random.default_rng(1)
    for name in ("north", "south", "west"):
        with np.load(sites / f"{name}.npz") as content:
            features = np.concatenate([rng.normal(size=(17, 6)), content["features"][:20]])
        np.savez(half / name, features=features, labels=np.arange(37) % 2)
    with pytest.raises(LedgerRefusal, match="20 of 37 rows"):
        run(configured(sites, clients=f"{half}/*.npz", dimension=8, backbone="projection:16"))


def test_the_folder_of_keys_is_the_anchor(sites: Path) -> None:
    keys = sites.parent / "keys"
    generate(["north", "south", "west"], "client", keys)
    generate(["university"], "collector", keys)
    generate(["clinic"], "aggregator", keys)
    run(configured(sites, new_ledger=True, keys=str(keys)))
    assert (keys / "ledger.json.ledger-head").exists()
    with pytest.raises(LedgerRefusal, match="--keys"):
        run(configured(sites))
