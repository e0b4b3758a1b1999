"""The page of licences has what users install."""

import pytest

from tools.documents import ROOT
from tools.licences import closure, normal
from tools.project import EXTRAS_OF_USERS, requirements

PAGE = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("extra", ["", *EXTRAS_OF_USERS])
def test_every_requirement_has_a_line(extra: str) -> None:
    for requirement in requirements(extra):
        assert f"\n| {normal(requirement.name)} | " in PAGE, requirement.name


def test_a_closure_has_what_requirements_need() -> None:
    found = closure(requirements())
    assert {"numpy", "joblib", "cffi"} <= found
    assert "flwr" not in found


def test_what_is_not_permissive_is_named() -> None:
    _, _, others = PAGE.partition("## To look at")
    assert "- fpylll: GNU General Public License" in others
    assert "- numpy" not in others
