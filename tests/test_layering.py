"""Imports point left only, from room to room; no file is excepted."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A module belongs to the longest of these that its name begins with. `__init__` is what a package
# exports, which may come from all of its rooms.
ROOMS = (
    "protocols",
    "protocols.primitives",
    "protocols.schemes",
    "protocols.seats",
    "protocols.__init__",
    "secure_afl",
    "secure_afl.data",
    "secure_afl.analytic",
    "secure_afl.features",
    "secure_afl.privacy",
    "secure_afl.methods",
    "secure_afl.evaluation",
    "secure_afl.federation",
    "secure_afl.runs",
    "secure_afl.sites",
    "secure_afl.flower",
    "secure_afl.tuning",
    "secure_afl.__init__",
    "secure_afl.cli",
    "secure_afl.__main__",
    "attacks.views",
    "attacks",
    "attacks.measures",
    "attacks.statistics",
    "attacks.features",
    "attacks.gradients",
    "attacks.encryption",
    "attacks.suite",
    "attacks.report",
    "attacks.cli",
)
PACKAGES = ("protocols", "secure_afl", "attacks")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


MODULES = {name_of(path) for path in FILES}


def is_module(name: str) -> bool:
    return name in MODULES or f"{name}.__init__" in MODULES


def room_of(module: str) -> str:
    if module not in MODULES:
        module = f"{module}.__init__"
    parts = module.split(".")
    prefixes = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next(prefix for prefix in prefixes if prefix in ROOMS)


def imported(path: Path) -> Iterator[str]:
    """The project's own modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [
                i if i in MODULES or f"{i}.__init__" in MODULES else node.module for i in inner
            ]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_room_imports_rooms_to_its_left_only(path: Path) -> None:
    own = room_of(name_of(path))
    for module in imported(path):
        room = room_of(module)
        assert ROOMS.index(room) <= ROOMS.index(own), f"{path} imports {module}: {room} > {own}"


def test_a_scheme_knows_no_other_scheme() -> None:
    def scheme(module: str) -> str:
        return ".".join(module.split(".")[:3])

    for path in (ROOT / "protocols" / "schemes").rglob("*.py"):
        for module in imported(path):
            if module.startswith("protocols.schemes."):
                assert scheme(module) == scheme(name_of(path)), f"{path} imports {module}"


def test_every_room_says_what_it_is_for_and_what_it_must_not_know() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            assert text.count(".") >= 2, path
            assert "must not" in text, path


def test_the_order_names_every_room() -> None:
    folders = {name_of(path.parent) for path in FILES if path.name == "__init__.py"}
    tops = {folder for folder in folders if folder.count(".") == 1}
    assert tops <= set(ROOMS)


def test_declarations_import_neither_scipy_nor_torch_nor_tenseal() -> None:
    """All options of all methods and protocols are there before anything heavy is."""
    code = (
        "import sys; from secure_afl.runs.settings import json_schema; json_schema(); "
        "print(sorted({'scipy', 'torch', 'tenseal', 'sklearn', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# What a process that takes part has no use for until it makes features, a model or a run.
NOT_FOR_A_PARTY = (
    *("scipy", "torch", "timm", "tenseal", "sklearn", "PIL", "sqlite3"),
    *("protocols.schemes.pairwise", "secure_afl.methods.frl", "secure_afl.data.dataset"),
    *("secure_afl.features.backbone", "secure_afl.evaluation", "secure_afl.federation.result"),
    *("secure_afl.runs.saving", "secure_afl.sites.convene", "secure_afl.federation.server"),
)


def test_a_party_imports_what_a_client_needs_and_no_more() -> None:
    """Its method and its protocol are looked up by their names, and others are not read."""
    code = (
        "import sys; import secure_afl.sites.process, secure_afl.sites.party\n"
        "from secure_afl.runs.choose import make_terms\n"
        "from secure_afl.runs.config import RunConfig\n"
        "terms = make_terms(RunConfig(method='afl', protocol='additive'))\n"
        "print(terms.method.name, terms.protocol.name)\n"
        f"print(sorted(set({NOT_FOR_A_PARTY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["afl additive", "[]"]


def test_packages_import_nothing_until_they_are_asked() -> None:
    code = (
        "import sys; import protocols, secure_afl, secure_afl.methods\n"
        "print(sorted({'numpy', 'msgspec', 'cryptography'} & set(sys.modules)))\n"
        "print({'Plain', 'Network'} <= set(dir(protocols)), 'Plain' in vars(protocols))\n"
        "print('AFL' in dir(secure_afl), 'AFL' in dir(secure_afl.methods))\n"
        "print(secure_afl.AFL is secure_afl.methods.AFL, 'AFL' in vars(secure_afl))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False", "True True", "True True"]


def test_help_imports_not_even_numpy() -> None:
    code = (
        "import sys; sys.argv = ['secure-afl', '--help']\n"
        "from secure_afl.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'cryptography', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Federate scikit-learn's handwritten digits" in done.stdout
