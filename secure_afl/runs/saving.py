"""What a run leaves on disk: its models, their cards, and its report.

Files are made aside and then put in their places, so that a crash leaves no half of one. A list in
the folder, `.secure-afl.json`, says which files were made here: no others are replaced or deleted.
"""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from protocols.files import flush_folder
from protocols.roster import CLIENT
from secure_afl.analytic.quantise import RowMode
from secure_afl.data.columns import Columns
from secure_afl.errors import ConfigError
from secure_afl.evaluation.pooled import PooledFigures
from secure_afl.features.backbone import Backbone
from secure_afl.features.table import table_backbone
from secure_afl.federation.keys import Keys
from secure_afl.federation.report import HeadReport, PrivacyReport
from secure_afl.federation.result import Result
from secure_afl.methods import artefact
from secure_afl.runs.choose import make_protocol
from secure_afl.runs.config import RunConfig
from secure_afl.runs.description import FILES, write_description
from secure_afl.runs.tables import design_of

log = logging.getLogger("secure_afl")

MADE = ".secure-afl.json"
MODEL, CARD, REPORT, PERSONAL = "model.safetensors", "model.json", "report.json", "personal"
PAGE, RECEIVER = "report.html", "receiver.json"
_ASIDE = ".saving-"
_FORMAT_VERSION = 1


class _Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The files that runs made in a folder.

    Attributes:
        files: by their path in it, the SHA-256 in hexadecimal of what each may hold: while results
            are replaced, the old and the new.
    """

    format_version: int
    files: dict[str, tuple[str, ...]]


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless files can be written into a folder.

    The folder is made if need be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); name another") from None


class Reported(Protocol):
    """What a card takes from any report."""

    @property
    def method(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def protects(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def feature_bits(self) -> int: ...
    @property
    def row_mode(self) -> RowMode: ...
    @property
    def ridge(self) -> float | None: ...
    @property
    def head(self) -> HeadReport | None: ...
    @property
    def pooled(self) -> PooledFigures | None: ...
    @property
    def outside(self) -> dict[str, int]: ...
    @property
    def privacy(self) -> PrivacyReport | None: ...


def make_card(
    report: Reported,
    cohort: int,
    spec: str,
    digest: bytes,
    config: RunConfig,
    columns: Columns | None,
) -> dict[str, Any]:
    """Make the card of a run's model: what its rows are, and how it was made.

    Args:
        cohort: how many clients are in the last sum.
        spec, digest: of the backbone.
        columns: what the features are, where rows are those of tables; with all ranges.
    """
    design = design_of(config)
    if design is not None and design.open:
        assert columns is not None, "a run over tables has columns"
        design = design.completed(columns)
        digest = table_backbone(design).digest
    return {
        "method": report.method,
        "backbone": {
            "spec": spec,
            "digest": digest.hex(),
            "image_size": config.image_size,
            "seed": config.seed,
        },
        "quantiser": {"bits": report.feature_bits, "mode": report.row_mode},
        "ridge": report.ridge,
        "head": msgspec.to_builtins(report.head),
        "session": report.session,
        "cohort": cohort,
        "protocol": report.protocol,
        "protects": report.protects,
        "privacy": msgspec.to_builtins(report.privacy),
        "pooled": msgspec.to_builtins(report.pooled),
        "outside": report.outside,
    } | ({} if design is None else {"table": msgspec.to_builtins(design.portable)})


def check_replaceable(out: Path, *, personal: bool) -> None:
    """Refuse a folder in whose results' places other things lie than what runs made.

    Args:
        personal: there will be personal models.

    Raises:
        ConfigError: naming the first file that no run made, or that was changed since.
    """
    made = _read_made(out)
    _check_made(out, (MODEL, CARD, REPORT, PAGE, RECEIVER, *FILES), made)
    folder = out / PERSONAL
    if not personal or not folder.exists():
        return
    if not folder.is_dir():
        raise _foreign(folder)
    _check_made(out, sorted(f"{PERSONAL}/{path.name}" for path in folder.iterdir()), made)


def save(
    result: Result, backbone: Backbone, config: RunConfig, out: Path, keys: Keys | None = None
) -> None:
    """Write the model, the personal models, their cards and the report into a folder.

    Args:
        keys: the receiver of the sum signs the model, and each client its own.

    Raises:
        OSError, ConfigError: as `write_results`.
    """

    def write(folder: Path) -> None:
        _write(result, backbone, config, folder)
        if keys is not None:
            _sign(result, config, folder, keys)

    write_results(out, write)


def _sign(result: Result, config: RunConfig, folder: Path, keys: Keys) -> None:
    """Sign the models of a folder: the global one as the receiver, personal ones as clients."""
    protocol = make_protocol(config)
    receiver = keys.coordinators(protocol)[protocol.receiver]
    artefact.sign(folder / MODEL, receiver, protocol.receiver_role)
    for path in sorted(folder.glob(f"{PERSONAL}/*.safetensors")):
        artefact.sign(path, keys.clients(list(result.personal))[path.stem], CLIENT)


def write_results(out: Path, write: Callable[[Path], None]) -> None:
    """Write results into a folder.

    What runs made there before is replaced, or deleted. A model is never beside the card of
    another: after a crash there are the old results, the new ones, or a model without its card.

    Args:
        write: writes them into an empty folder.

    Raises:
        OSError: it cannot be written.
        ConfigError: what no run made is in the way.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=out))
    try:
        write(aside)
        _replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    log.info("saved into %s", out)


def _write(result: Result, backbone: Backbone, config: RunConfig, folder: Path) -> None:
    """Write all files of a result into an empty folder."""
    report = result.report
    cohort = report.clients.included
    columns = result.public.task.columns
    card = make_card(report, cohort, backbone.name, backbone.digest, config, columns)
    result.model.save(folder / MODEL, card)
    if result.method.personalises:
        (folder / PERSONAL).mkdir()
        for name, model in result.personal.items():
            # Made from that client's exact rows and for it alone: no promise covers it.
            own = card | {"client": name, "privacy": None}
            model.save(folder / PERSONAL / f"{name}.safetensors", own)
    (folder / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    # Templates are slow to load, and sites that keep a model need none.
    from secure_afl.runs.page.write import write_run

    write_run(folder / PAGE, report)
    if report.head is not None and result.curve:
        # A function of the Gram matrix's spectrum: for the receiver of the sum alone.
        curve = {"session": report.session, "setting": report.head.setting, "curve": result.curve}
        (folder / RECEIVER).touch(mode=0o600)
        (folder / RECEIVER).write_bytes(msgspec.json.format(msgspec.json.encode(curve)) + b"\n")
    _describe(result, folder)


def _describe(result: Result, folder: Path) -> None:
    """Write Table 1 and what goes with it, where rows have columns; else say why there is none."""
    try:
        summary = result.summary
    except ConfigError as error:
        log.warning("%s", error)
        return
    if summary is not None:
        write_description(folder, summary, result.references)


def _replace(aside: Path, out: Path) -> None:
    """Put files that are written aside in the places of those that runs made before."""
    found = {path.relative_to(aside).as_posix(): path for path in aside.rglob("*.*")}
    new = {name: _flushed(path) for name, path in found.items()}
    made = _read_made(out)
    _check_made(out, new, made)
    # First the list, of which the old and the new are a part.
    both = {
        name: (*made.get(name, ()), *([new[name]] if name in new else [])) for name in made | new
    }
    _put(out / MADE, _encoded(both), aside)
    if any(name.startswith(f"{PERSONAL}/") for name in new):
        (out / PERSONAL).mkdir(exist_ok=True)
    # Without their cards models cannot be loaded: no old card is ever beside a new model.
    cards = [name for name in both if name.endswith(".json")]
    gone = [name for name in both if name not in new]
    for name in [*cards, *gone]:
        if _digest(out / name) in both[name]:
            (out / name).unlink()
    for name in sorted(new, key=lambda name: name.endswith(".json")):
        found[name].replace(out / name)
    with suppress(OSError):
        (out / PERSONAL).rmdir()
    for folder in (out, out / PERSONAL):
        if folder.is_dir():
            flush_folder(folder)
    _put(out / MADE, _encoded({name: (digest,) for name, digest in new.items()}), aside)


def _put(path: Path, content: bytes, aside: Path) -> None:
    """Replace a file, whole even after a crash."""
    partial = aside / path.name
    partial.write_bytes(content)
    _flushed(partial)
    partial.replace(path)


def _flushed(path: Path) -> str:
    """Flush a file to the disk; return the SHA-256 of its content, in hexadecimal."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal; empty where there is no regular file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encoded(files: Mapping[str, tuple[str, ...]]) -> bytes:
    made = _Made(_FORMAT_VERSION, dict(sorted(files.items())))
    return msgspec.json.format(msgspec.json.encode(made)) + b"\n"


def _read_made(out: Path) -> dict[str, tuple[str, ...]]:
    """Read which files runs made in a folder."""
    path = out / MADE
    try:
        made = msgspec.json.decode(path.read_bytes(), type=_Made)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{path}, which lists what runs made there, cannot be read ({error}); move the folder "
            "away, or name another --out"
        ) from None
    inside = [name for name in made.files if not Path(name).is_absolute() and ".." not in name]
    return {name: made.files[name] for name in inside}


def _check_made(out: Path, names: Iterable[str], made: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ConfigError for the first file that is there and that no run made."""
    for name in names:
        path = out / name
        there = path.exists() or path.is_symlink()
        if there and _digest(path) not in made.get(name, ()):
            raise _foreign(path)


def _foreign(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is in the way: no run made it, or it was changed since. Nothing is deleted that a "
        "run did not make: move it away, or name another --out"
    )
