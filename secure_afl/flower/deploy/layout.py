"""A federation's files for a demo: keys, rosters, settings, data, ledgers, all in one folder."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from protocols.roster import CLIENT
from secure_afl.data.dataset import Dataset
from secure_afl.data.files import embedded_digits
from secure_afl.federation.keys import ROSTER, identity_path, make_identity, public_path
from secure_afl.federation.rosters import merge
from secure_afl.progress import Progress
from secure_afl.runs.choose import make_protocol
from secure_afl.runs.settings import make_config
from secure_afl.sites.process import prepare_site

log = logging.getLogger("secure_afl")

SITES = ("north", "south", "west")
DATA = "SECURE_AFL_DATA"
SIGNS = "timm:mobilenetv1_100,pad_type=same,mean=0.50196,std=0.50196"
CHECKPOINT = "backbones/mobilenetv1_100.safetensors"

PROTOCOLS: Mapping[str, Mapping[str, object]] = {
    "additive": {},
    # Three clients: nobody may vanish.
    "pairwise": {"dropout-fraction": 0.0},
    "ckks": {},
}
"""Those that the demo shows, with settings for three sites."""


@dataclass(frozen=True)
class Rows:
    """Where a demo's data lie.

    Attributes:
        what: they are, for people.
        folders: of images, by site.
        test: the convener's own.
        settings: that make features of them.
        max_rows: the bound that each site declares.
    """

    what: str
    folders: Mapping[str, Path]
    test: Path
    settings: Mapping[str, object]
    max_rows: int

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in order."""
        return sorted(folder.name for folder in self.test.iterdir() if folder.is_dir())


@dataclass(frozen=True)
class Laid:
    """A federation's files.

    Attributes:
        roles: of all parties, by name.
        convener: who receives the sums.
        folder: of everything; a party's is of its name.
        rows: the data.
    """

    roles: Mapping[str, str]
    convener: str
    folder: Path
    rows: Rows

    def site(self, name: str) -> Path:
        """Return a party's settings."""
        return self.folder / name / "site.toml"

    @property
    def run(self) -> Path:
        """Settings of the run."""
        return self.folder / self.convener / "run.toml"

    def out(self, name: str) -> Path:
        """Return the folder in which a party keeps its model."""
        return self.folder / name / "results"


def find_rows(folder: Path) -> Rows:
    """Find hand signs where the environment names a folder of data; else cut the digits in three.

    Args:
        folder: for the digits, as images.
    """
    given = os.environ.get(DATA)
    if given:
        signs = Path(given).resolve() / "sign_digits"
        folders = {name: signs / "train" / f"site_{i:02}" for i, name in enumerate(SITES)}
        settings = {
            "backbone": SIGNS,
            "checkpoint": str(Path(given).resolve() / CHECKPOINT),
            "image-size": 128,
        }
        return Rows("hand signs, MobileNet features", folders, signs / "test", settings, 128)
    digits = embedded_digits()
    quarters = np.array_split(np.random.default_rng(0).permutation(len(digits)), 4)
    for name, places in zip((*SITES, "test"), quarters, strict=True):
        _write_images(digits.take(places), folder / name)
    folders = {name: folder / name for name in SITES}
    settings = {"backbone": "projection:512"}
    return Rows("the embedded digits, as images", folders, folder / "test", settings, 512)


def lay_out(folder: Path, protocol: str, progress: Progress | None = None) -> Laid:
    """Write all that the parties of a demo need, each in its own folder, and make features.

    Args:
        folder: empty; made if need be.
        protocol: its name.
    """
    rows = find_rows(folder / "data")
    terms = {"method": "afl", "protocol": protocol, **PROTOCOLS[protocol]}
    scheme = make_protocol(make_config({k.replace("-", "_"): v for k, v in terms.items()}))
    roles = dict.fromkeys(SITES, CLIENT) | dict(scheme.coordinators())
    laid = Laid(roles, scheme.receiver, folder, rows)
    for name, role in roles.items():
        make_identity(name, role, folder / name)
    lines = [public_path(folder / name, name) for name in roles]
    for name, role in roles.items():
        merge(folder / name / ROSTER, lines)
        settings = {
            "identity": identity_path(Path(), name).name,
            "roster": ROSTER,
            "state": "state",
            "role": role,
            "out": "results",
            **terms,
        }
        if role == CLIENT:
            settings |= {
                "data": str(rows.folders[name]),
                **rows.settings,
                "max-rows": rows.max_rows,
                "ledger": "ledger.json",
            }
        elif name != laid.convener:
            del settings["out"]
        laid.site(name).write_text(_toml(settings))
    run = {**terms, **rows.settings, "classes": rows.classes, "test": str(rows.test)}
    laid.run.write_text(_toml(run))
    for name in SITES:
        prepare_site(laid.site(name), log.info, new_ledger=True, progress=progress)
    return laid


def _write_images(dataset: Dataset, folder: Path) -> None:
    for index, label in enumerate(dataset.labels):
        place = folder / dataset.classes[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.image(index)).save(place / f"{index:04}.png")


def _toml(settings: Mapping[str, object]) -> str:
    """Write settings as TOML; strings, numbers and lists of strings read as JSON does."""
    import json

    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
