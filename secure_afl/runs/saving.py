"""What a run leaves on disk: its models, their cards, and its report."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

import msgspec

from secure_afl.errors import ConfigError
from secure_afl.features.backbone import Backbone
from secure_afl.federation.report import HeadReport, PrivacyReport
from secure_afl.federation.result import Result
from secure_afl.runs.choose import make_method
from secure_afl.runs.config import RunConfig
from secure_afl.runs.page.write import write_run

log = logging.getLogger("secure_afl")


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
    def ridge(self) -> float | None: ...
    @property
    def head(self) -> HeadReport | None: ...
    @property
    def outside(self) -> dict[str, int]: ...
    @property
    def privacy(self) -> PrivacyReport | None: ...


def make_card(
    report: Reported, cohort: int, backbone: Backbone, config: RunConfig
) -> dict[str, Any]:
    """Make the card of a run's model: what its rows are, and how it was made.

    Args:
        cohort: how many clients are in the last sum.
    """
    return {
        "method": report.method,
        "backbone": {
            "spec": backbone.name,
            "digest": backbone.digest.hex(),
            "image_size": config.image_size,
            "seed": config.seed,
        },
        "quantiser": {"bits": report.feature_bits, "mode": "normalise"},
        "ridge": report.ridge,
        "head": msgspec.to_builtins(report.head),
        "session": report.session,
        "cohort": cohort,
        "protocol": report.protocol,
        "protects": report.protects,
        "privacy": msgspec.to_builtins(report.privacy),
        "outside": report.outside,
    }


def save(result: Result, backbone: Backbone, config: RunConfig, out: Path) -> None:
    """Write the model, the personal models, their cards and the report into a folder.

    The report is there for programs, `report.json`, and for people, `report.html`.
    """
    report = result.report
    card = make_card(report, report.clients.included, backbone, config)
    out.mkdir(parents=True, exist_ok=True)
    result.model.save(out / "model.safetensors", card)
    # Personal models of an earlier run into this folder do not belong to this one.
    shutil.rmtree(out / "personal", ignore_errors=True)
    if make_method(config).personalises:
        folder = out / "personal"
        folder.mkdir(exist_ok=True)
        for name, model in result.personal.items():
            # Made from that client's exact rows and for it alone: no promise covers it.
            model.save(folder / f"{name}.safetensors", card | {"client": name, "privacy": None})
    log.info("saved into %s", out)
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    write_run(out / "report.html", report)
    _save_curve(result, out / "receiver.json")


def _save_curve(result: Result, path: Path) -> None:
    """Write what is for the receiver of the sum alone, readable for its owner alone.

    The curve is a function of the Gram matrix's spectrum. A run without one leaves no file.
    """
    path.unlink(missing_ok=True)
    head, curve = result.report.head, result.curve
    if head is None or not curve:
        return
    content = {"session": result.report.session, "setting": head.setting, "curve": curve}
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
