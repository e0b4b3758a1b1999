"""One run from configuration to files: folders → features → federation → model and report."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from protocols.additive import Additive
from protocols.ckks import Bfv, Ckks
from protocols.errors import InvalidSession
from protocols.pairwise import Pairwise
from protocols.plain import Plain
from protocols.protocol import Protocol
from protocols.session import check_name
from secure_afl import data, partition
from secure_afl.cache import FeatureCache, default_path
from secure_afl.clients import ClientData
from secure_afl.config import RunConfig
from secure_afl.data import Dataset
from secure_afl.errors import ConfigError, DataError
from secure_afl.features import Backbone, parse_backbone
from secure_afl.keys import load_keys
from secure_afl.methods import AFL, AnyMethod, ConvNet, FedAvg, FedHiP, FedSGD, Linear
from secure_afl.simulation import Federation, Result, majority

GRADIENT_METHODS = ("fedavg", "fedsgd")

Progress = Callable[[str, int, int], None]

log = logging.getLogger("secure_afl")

# Independent streams of one seed.
_PARTITION, _HOLDOUT, _DROP, _TEST = range(4)


def run(config: RunConfig, progress: Progress | None = None) -> Result:
    """Run a federation as configured and, with `config.out`, save what it yields.

    Args:
        config: the settings.
        progress: called with what is under way, how much is done, and of how much.

    Raises:
        SecureAflError, ProtocolError: with what to change.
    """
    if config.out is not None:
        check_folder(Path(config.out))
    clients, test = load(config)
    for client in clients:
        try:
            check_name(client.name)
        except InvalidSession as error:
            raise DataError(
                f"client {client.name!r} cannot be a party; rename its folder or file: {error}"
            ) from None
    if len(clients) < 2:
        raise ConfigError(
            f"{len(clients)} client; a federation needs at least two: --partition iid:10"
        )
    least = config.min_cohort or majority(len(clients))
    if config.corrupt + 2 > least or least > len(clients):
        raise ConfigError(
            f"minimum cohort {least} of {len(clients)} clients, {config.corrupt} of them declared "
            f"corrupt; it has to be ≥ corrupt + 2 = {config.corrupt + 2} and ≤ {len(clients)}"
        )
    if config.drop > len(clients) - least:
        raise ConfigError(
            f"drop {config.drop} of {len(clients)} clients leaves fewer than the minimum cohort "
            f"{least}; allowed: ≤ {len(clients) - least}, or more with a lower --min-cohort"
        )
    method, protocol = make_method(config), make_protocol(config)
    keys = load_keys(Path(config.keys)) if config.keys else None
    clients, holdout = hold_out(clients, config)
    backbone = choose_backbone(config, clients[0])

    begin = perf_counter()
    features = extract(backbone, [*clients, *holdout, *test], progress)
    seconds = perf_counter() - begin
    rows, held = features[: len(clients)], features[len(clients) : len(clients) + len(holdout)]

    federation = Federation(
        method,
        protocol,
        feature_bits=config.feature_bits,
        min_cohort=config.min_cohort,
        corrupt=config.corrupt,
        backbone=backbone.digest,
        keys=keys,
    )
    result = federation.run(
        rows,
        classes=clients[0].classes,
        max_rows=config.max_rows,
        test=features[-1] if test else None,
        holdout=held,
        drop=_choose_drops(config, clients),
    )
    result = replace(
        result,
        report=msgspec.structs.replace(
            result.report,
            seconds=msgspec.structs.replace(result.report.seconds, features=seconds),
            settings=msgspec.to_builtins(config),
        ),
    )
    if config.out is not None:
        save(result, backbone, config, Path(config.out))
    return result


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless files can be written into a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); name another") from None


def load(config: RunConfig) -> tuple[list[Dataset], list[Dataset]]:
    """The clients' data sets and, in a list of one or none, the test set."""
    rng = np.random.default_rng([config.seed, _PARTITION])
    if config.clients is None:
        if config.test is not None:
            raise ConfigError(
                f"--test {config.test} goes with --clients; the embedded digits bring their own"
            )
        whole = data.embedded_digits()
        train, held = data.split_holdout(whole, 0.2, np.random.default_rng([config.seed, _TEST]))
        assert held is not None
        clients = partition.parse(config.partition or "dirichlet:10:0.5").split(train, rng)
        return clients, [held]
    clients = data.load_clients(config.clients)
    test = config.test
    if config.partition is not None:
        if len(clients) != 1:
            raise ConfigError(
                f"--partition cuts up one data set, but {len(clients)} paths match "
                f"{config.clients!r}; leave one of the two out"
            )
        if test is None and data.has_split(config.clients, "test"):
            test = config.clients
        clients = partition.parse(config.partition).split(clients[0], rng)
    elif len(clients) == 1:
        raise ConfigError(
            f"{config.clients!r} is one data set, and a federation needs at least two clients; "
            "quote a glob that matches several, or cut it up: --partition iid:10"
        )
    if test is None:
        return clients, []
    tests = data.align([data.load(test, "test")], clients[0].classes)
    data.check_alike([clients[0], *tests])
    return clients, tests


def hold_out(clients: Sequence[Dataset], config: RunConfig) -> tuple[list[Dataset], list[Dataset]]:
    """Each client's training rows, and held-out rows of those that have enough."""
    rng = np.random.default_rng([config.seed, _HOLDOUT])
    pairs = [data.split_holdout(client, config.holdout, rng) for client in clients]
    return [train for train, _ in pairs], [held for _, held in pairs if held is not None]


def choose_backbone(config: RunConfig, example: Dataset) -> Backbone:
    """The configured backbone, or the default for this kind of data."""
    spec = config.backbone
    if config.method in GRADIENT_METHODS and config.architecture == "convnet":
        if spec not in (None, "identity"):
            raise ConfigError(
                f"a convnet trains on pixels, not on features of {spec!r}; allowed: identity. "
                "Leave --backbone out, or train --architecture linear"
            )
        spec = "identity"
    if spec is None:
        images = "projection:512" if config.clients is None else "timm:resnet18"
        spec = images if example.holds_images else "identity"
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    return parse_backbone(spec, checkpoint, config.image_size, config.seed)


def extract(
    backbone: Backbone, datasets: Sequence[Dataset], progress: Progress | None
) -> list[ClientData]:
    """Features of every data set, from the cache where they are in it."""
    cache = FeatureCache(default_path())
    total = sum(len(dataset) for dataset in datasets)
    done = 0
    extracted = []
    for dataset in datasets:

        def advance(rows: int, _of: int, before: int = done) -> None:
            if progress is not None:
                progress("features", before + rows, total)

        features = backbone.extract(dataset, cache, advance)
        extracted.append(ClientData(dataset.name, features, dataset.labels))
        done += len(dataset)
    return extracted


def make_method(config: RunConfig) -> AnyMethod:
    """The configured method."""
    if config.method == "fedhip":
        return FedHiP(alpha=config.alpha, ridge=config.ridge, reading=config.reading)
    if config.method in GRADIENT_METHODS:
        return _gradient_method(config)
    return AFL(ridge=config.ridge)


def make_protocol(config: RunConfig) -> Protocol:
    """The configured protocol."""
    match config.protocol:
        case "additive":
            return Additive(config.aggregators)
        case "pairwise":
            return Pairwise(config.corrupt_fraction, config.dropout_fraction, config.server_trust)
        case "ckks":
            return Ckks(config.verify)
        case "bfv":
            return Bfv(config.verify)
        case "plain":
            return Plain()


def save(result: Result, backbone: Backbone, config: RunConfig, out: Path) -> None:
    """Write the model, the personal models, their cards and the report into a folder."""
    report = result.report
    card: dict[str, Any] = {
        "method": report.method,
        "backbone": {
            "spec": backbone.name,
            "digest": backbone.digest.hex(),
            "image_size": config.image_size,
            "seed": config.seed,
        },
        "quantiser": {"bits": report.feature_bits, "mode": "normalise"},
        "ridge": report.ridge,
        "session": report.session,
        "cohort": report.clients.included,
        "protocol": report.protocol,
        "protects": report.protects,
    }
    out.mkdir(parents=True, exist_ok=True)
    result.model.save(out / "model.safetensors", card)
    # Personal models of an earlier run into this folder do not belong to this one.
    shutil.rmtree(out / "personal", ignore_errors=True)
    if report.method == "fedhip":
        folder = out / "personal"
        folder.mkdir(exist_ok=True)
        for name, model in result.personal.items():
            model.save(folder / f"{name}.safetensors", card | {"client": name})
    log.info("saved into %s", out)
    (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _gradient_method(config: RunConfig) -> FedAvg | FedSGD:
    settings: dict[str, Any] = {
        "rounds": config.rounds,
        "learning_rate": config.learning_rate,
        "clip": config.update_clip,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    architecture = ConvNet() if config.architecture == "convnet" else Linear()
    if config.method == "fedsgd":
        return FedSGD(**given, architecture=architecture, seed=config.seed)
    return FedAvg(
        **given,
        architecture=architecture,
        seed=config.seed,
        local_epochs=config.local_epochs,
        batch_size=config.batch_size,
        proximal=config.proximal,
    )


def _choose_drops(config: RunConfig, clients: Sequence[Dataset]) -> list[str]:
    rng = np.random.default_rng([config.seed, _DROP])
    chosen = rng.choice(len(clients), size=config.drop, replace=False)
    return [clients[i].name for i in chosen]
