"""The licences of what is installed with this project, as docs/licences.md.

    python -m tools.licences

It reads the metadata of the environment that it runs in. So it lists what the project's own
requirements, with extras, lead to there, and nothing else that is installed beside them.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tools.documents import ROOT
from tools.project import EXTRAS_OF_USERS, requirements

PAGE = ROOT / "docs" / "licences.md"
# Licences under which everything may be used and passed on with an Apache-2.0 program, if notices
# stay. Whatever has none of these words is listed by name for people to look at.
_PERMISSIVE = re.compile(
    r"apache|bsd|\bmit\b|mit-|isc|python|psf|mpl|mozilla|zlib|hpnd|cc0|unlicense|0bsd",
    re.IGNORECASE,
)

_INTRODUCTION = """# Licences of dependencies

secure-afl is under Apache 2.0, and contains no code of others. What it needs is installed beside
it, each package under its own licence. `make licences` writes this page from the metadata of the
packages in one environment, on Linux with CUDA. Other systems need fewer packages. A package stands
where it comes first: the core, then the extras in order.

"""
_TO_LOOK_AT = """These have no permissive licence, or none that their metadata name. The packages of
NVIDIA come with PyTorch for GPUs; PyTorch for processors alone has none of them. `fpylll` and
`cysignals` are for one attack, `rows-lattice`, which says so where the extra `lattice` is not
installed. Who passes on a bundle with that extra has to keep to the GPL.

"""


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Render the page from what is installed."""
    licences = _licences()
    done: set[str] = set()
    rows: list[tuple[str, str, str]] = []
    for extra in ("", *EXTRAS_OF_USERS):
        for name in sorted(closure(requirements(extra)) - done):
            done.add(name)
            rows.append((name, licences.get(name, "?"), extra or "core"))
    text = _INTRODUCTION + "| package | licence, as it says itself | comes with |\n|---|---|---|\n"
    text += "".join(f"| {name} | {licence} | {extra} |\n" for name, licence, extra in rows)
    others = [name for name, licence, _ in rows if not _PERMISSIVE.search(licence)]
    text += "\n## To look at\n\n"
    text += _TO_LOOK_AT
    return text + "".join(f"- {name}: {licences.get(name, '?')}\n" for name in others)


def closure(wanted: Iterable[Requirement]) -> set[str]:
    """List all packages that requirements lead to in this environment, by their names.

    Packages that another system or Python would need are not installed, and left out.
    """
    found: dict[str, set[str]] = {}
    todo = list(wanted)
    while todo:
        requirement = todo.pop()
        name, extras = normal(requirement.name), {"", *requirement.extras}
        if name not in found:
            found[name] = set()
        new = extras - found[name]
        if not new:
            continue
        found[name] |= new
        todo += _needs(name, new)
    return {name for name in found if _installed(name)}


def _needs(name: str, extras: set[str]) -> Iterator[Requirement]:
    try:
        lines = distribution(name).requires or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _licences() -> dict[str, str]:
    command = [str(Path(sys.executable).parent / "pip-licenses"), "--format=json", "--from=mixed"]
    command += ["--with-system"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {normal(one["Name"]): _short(one["License"]) for one in json.loads(said)}


def _short(licence: str) -> str:
    """Keep the first line of a licence; some packages put the whole text there."""
    return licence.strip().splitlines()[0].replace("|", "/")[:80]


def normal(name: str) -> str:
    """Bring a distribution's name to its one form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
