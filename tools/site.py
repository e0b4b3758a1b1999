"""Hooks of the documents' site: its tree is the repository's, so that every link is good in both.

mkdocs looks for pages under `docs/` alone. These hooks put them where the repository has them, add
the documents of the root and whatever file a document links to, and write the reference: a page of
each package's public names.
"""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from tools.documents import ROOT, documents

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
# The names that whoever adds a protocol, a method or an attack subclasses or is given.
EXTENDING = (
    "protocols.protocol.Coalition",
    "secure_afl.methods.method.Method",
    "secure_afl.methods.method.PublicState",
    "secure_afl.methods.method.Task",
    "secure_afl.privacy.sensitivity.Sensitivity",
    "attacks.attack.Attack",
    "attacks.attack.Known",
    "attacks.attack.Truth",
    "attacks.attack.Measure",
    "attacks.views.run.RunView",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Give each document the path that it has in the repository, and add what is linked."""
    pages = documents()
    # Of the theme: its styles, scripts and icons.
    placed = [file for file in files if file.src_dir != config.docs_dir]
    for path in sorted({*pages, *(there for page in pages for there in _linked(page))}):
        name = path.relative_to(ROOT).as_posix()
        placed.append(File.generated(config, name, abs_src_path=str(path)))
    for name, text in _reference().items():
        placed.append(File.generated(config, f"docs/reference/{name}.md", content=text))
    return Files(placed)


def slug(text: str, separator: str) -> str:
    """Name a heading's anchor as GitHub does: lower case, dashes, no punctuation."""
    return re.sub(r"[^\w -]", "", text.lower()).replace(" ", separator)


def _linked(page: Path) -> set[Path]:
    text = page.read_text(encoding="utf-8")
    targets = ((page.parent / target).resolve() for target in LINK.findall(text))
    return {path for path in targets if path.is_file() and path.is_relative_to(ROOT)}


def _reference() -> dict[str, str]:
    """The reference's pages by name, in Markdown."""
    pages = {}
    for name in ("secure_afl", "protocols"):
        package = importlib.import_module(name)
        exported = [_home(package, one) for one in package.__all__ if _is_no_module(package, one)]
        pages[name] = _page(f"Package `{name}`", _first_paragraph(package), exported)
    words = "What a protocol, a method or an attack of your own subclasses, returns or is given."
    pages["extending"] = _page("Extending", words, list(EXTENDING))
    return pages


def _page(title: str, words: str, names: list[str]) -> str:
    parts = [f"# {title}", words, *(f"::: {name}" for name in names)]
    return "\n\n".join(parts) + "\n"


def _first_paragraph(package: ModuleType) -> str:
    return inspect.cleandoc(package.__doc__ or "").partition("\n\n")[0]


def _is_no_module(package: ModuleType, name: str) -> bool:
    return not inspect.ismodule(getattr(package, name))


def _home(package: ModuleType, name: str) -> str:
    """The full name by which an export is defined, where its docstring is."""
    found: Any = getattr(package, name)
    home: str | None = getattr(found, "__module__", None)
    return f"{home}.{found.__qualname__}" if home else f"{package.__name__}.{name}"
