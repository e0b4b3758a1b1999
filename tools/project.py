"""What pyproject.toml declares: requirements of the core and of each extra."""

import tomllib

from packaging.requirements import Requirement

from tools.documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What users install; the others are for whoever works on the project.
EXTRAS_OF_USERS = ("vision", "dicom", "tables", "tune", "lattice", "flower")


def requirements(extra: str = "") -> list[Requirement]:
    """List the requirements of an extra, or of the core."""
    declared = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return [Requirement(line) for line in declared]
