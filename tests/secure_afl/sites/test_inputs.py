"""What a site is told of its own data, and keeps to itself."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from protocols import Plain
from secure_afl.errors import DataError
from secure_afl.features.backbone import parse_backbone
from secure_afl.methods import AFL
from secure_afl.runs.config import RunConfig
from secure_afl.sites.check import check_site
from secure_afl.sites.process import prepare_site
from secure_afl.sites.rows import SiteRows
from tests.kit.samples import make_clients
from tests.kit.sites import Sites

CLIENTS = {client.name: client for client in make_clients((20, 25))}


def rows_of(path: Path, mapping: Path | None = None) -> SiteRows:
    config = RunConfig(backbone="identity", mapping=None if mapping is None else str(mapping))
    return SiteRows("c0", path, config, AFL(), path.parent / "features")


@pytest.mark.parametrize("before", ["party", "prepare", "check"])
def test_a_sites_account_is_a_file_of_its_own(before: str, tmp_path: Path) -> None:
    """Whoever makes the features first says it: the others find them made."""
    sites = Sites(tmp_path, Plain(), CLIENTS)
    name = next(iter(CLIENTS))
    data = next((tmp_path / name).glob("*.npz"))
    with np.load(data) as held:
        arrays = dict(held)
    key = "features" if "features" in arrays else "x"
    arrays[key][3] = arrays[key][2] = 0
    np.savez(data, **arrays)
    settings = tmp_path / name / "site.toml"
    if before == "prepare":
        prepare_site(settings, sites.told[name].append, new_ledger=True)
    elif before == "check":
        sites.told[name] += [found.words for found in check_site(settings) if found.what == "data"]
    else:
        sites.start(name)
    file = tmp_path / name / "state" / "account.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    content = json.loads(file.read_text())
    assert (content["zero_rows"], content["duplicates"]) == (2, 1)
    told = sites.told[name]
    assert any("2 of 20 rows are all zero" in line for line in told)
    # Nothing of it is in the post.
    for path in (tmp_path / "post").rglob("*"):
        assert path.is_dir() or b"zero_rows" not in path.read_bytes()


def test_a_site_compares_its_classes_at_home(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(4), y=np.array(["Well", "ill", "ill", "Well"]))
    backbone = parse_backbone("identity").digest
    with pytest.raises(DataError, match=r"'well' .of the run. and 'Well' .* look like one"):
        rows_of(tmp_path / "a.npz").check(4, ("ill", "well"), backbone)
    with pytest.raises(DataError, match=r"names its classes .* numbers them"):
        rows_of(tmp_path / "a.npz").check(4, ("0", "1"), backbone)
    # What was made before is made anew with a mapping.
    (tmp_path / "names.toml").write_text('[classes]\n"Well" = "well"\n')
    mapped = rows_of(tmp_path / "a.npz", tmp_path / "names.toml")
    mapped.check(4, ("ill", "well", "healed"), backbone)
    assert mapped.load(4, ("ill", "well")).labels.tolist() == [1, 0, 0, 1]


def test_a_site_of_zeros_is_refused_before_anybody_hears_of_it(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 2)), y=[0, 1, 0, 1])
    with pytest.raises(DataError, match="all features of client 'a' are zero"):
        rows_of(tmp_path / "a.npz").prepared  # noqa: B018
