"""From a configuration to features: folders → data sets → clients → feature rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from protocols.errors import InvalidSession
from protocols.roster import check_name
from secure_afl.analytic.patients import known_patients
from secure_afl.analytic.rows import ClientData
from secure_afl.data import account as accounting
from secure_afl.data import dataset as data
from secure_afl.data import files as data_files
from secure_afl.data import partition
from secure_afl.data.account import Account, Finding
from secure_afl.data.compare import compare
from secure_afl.data.dataset import Dataset
from secure_afl.data.ids import parse_ids
from secure_afl.data.mapping import Mapping as Names
from secure_afl.data.mapping import read_mapping
from secure_afl.data.tables.design import Design
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.features.cache import FeatureCache, default_path
from secure_afl.features.table import table_backbone
from secure_afl.federation.task import Terms
from secure_afl.methods.method import AnyMethod
from secure_afl.progress import Progress
from secure_afl.runs.choose import make_method
from secure_afl.runs.config import RunConfig
from secure_afl.runs.tables import check_outcome, design_of

# Independent streams of one seed.
_PARTITION, _HOLDOUT, _TEST = 0, 1, 3


@dataclass(frozen=True, eq=False)
class Prepared:
    """The things that a run begins with.

    Attributes:
        classes: names.
        clients, holdout: features of the clients' rows, and of those that they hold out.
        test: features of the test set, if there is one.
        backbone: what made them.
        public: features (p, d) of the public data, if there are any.
        lineages: what a ledger knows each client's data by.
        seconds: taken.
    """

    classes: tuple[str, ...]
    clients: Sequence[ClientData]
    holdout: Sequence[ClientData]
    test: ClientData | None
    backbone: Backbone
    public: NDArray[np.floating] | None
    lineages: Mapping[str, str]
    seconds: float

    def __repr__(self) -> str:
        return f"<Prepared: {len(self.clients)} clients>"


@dataclass(frozen=True, eq=False)
class Sources:
    """The data sets that a configuration names, as they were read.

    Attributes:
        datasets: one for each client, or one to cut up.
        tests: the test set, if there is one.
        mapping: of their names.
        design: of tables; None for other data.
    """

    datasets: list[Dataset]
    tests: list[Dataset]
    mapping: Names
    design: Design | None = None


@dataclass(frozen=True)
class Accounts:
    """What was read for a simulation, which has all data in one place.

    Attributes:
        sites: of each client, or of the data set that is cut up.
        findings: what looks wrong at any of them or between them, the worst first.
        tested: there was a test set to compare with.
    """

    sites: tuple[Account, ...]
    findings: tuple[Finding, ...]
    tested: bool


def prepare(
    config: RunConfig,
    terms: Terms,
    progress: Progress | None = None,
    check: Callable[[Sequence[Dataset]], None] = lambda clients: None,
    tell: Callable[[Accounts], None] | None = None,
) -> Prepared:
    """Load, cut up and pass through the backbone what the configuration names.

    Args:
        check: of the clients, before the features, which take long.
        progress: called with what is under way, how much is done, and of how much.
        tell: called with the account of what was read, before the features; never with noise, for
            numbers of rows are private then.

    Raises:
        DataError, ConfigError: with what to change.
    """
    sources = read_sources(config)
    check_outcome(terms.method, sources.design)
    embed = partial(_embedded, config, terms.method, progress)
    clients, test = cut(config, sources, embed), sources.tests
    check_parties(clients)
    check(clients)
    if terms.by_patient:
        for client in clients:
            known_patients(client.name, client.patients)
    _check_several_classes(clients)
    if tell is not None and terms.privacy is None and config.clients is not None:
        tell(account_for(sources, progress))
    _check_public(config)
    named = lineages(config, clients)
    clients, holdout = hold_out(clients, config)
    public = (
        [data_files.load_unlabelled(config.public, "train")] if config.public is not None else []
    )
    data.check_alike([clients[0], *public])
    backbone = choose_backbone(config, terms.method, clients[0])
    begin = perf_counter()
    features = extract(backbone, [*clients, *holdout, *test, *public], progress)
    for part in features[: len(clients)]:
        check_not_all_zero(part)
    seconds = perf_counter() - begin
    parts = iter(features)
    rows = [next(parts) for _ in clients]
    held = [next(parts) for _ in holdout]
    tested = [next(parts) for _ in test]
    shared = next(parts, None)
    return Prepared(
        clients[0].classes,
        rows,
        held,
        tested[0] if tested else None,
        backbone,
        None if shared is None else shared.features,
        named,
        seconds,
    )


def load(config: RunConfig) -> tuple[list[Dataset], list[Dataset]]:
    """Load the clients' data sets and, in a list of 0..1, the test set."""
    sources = read_sources(config)

    def embed(dataset: Dataset) -> NDArray[np.floating]:
        return _embedded(config, make_method(config), None, dataset)

    return cut(config, sources, embed), sources.tests


def read_sources(config: RunConfig) -> Sources:
    """Read the data sets that the configuration names, and bring them to one list of classes."""
    mapping = read_mapping(Path(config.mapping) if config.mapping is not None else None)
    if config.clients is None:
        for name in ("test", "mapping", "id", "dictionary"):
            if (value := getattr(config, name)) is not None:
                raise ConfigError(
                    f"--{name} {value} goes with --clients; the embedded digits bring their own"
                )
        whole = data_files.embedded_digits()
        train, held = data.split_holdout(whole, 0.2, np.random.default_rng([config.seed, _TEST]))
        assert held is not None
        return Sources([train], [held], mapping)
    design = design_of(config)
    ids = parse_ids(config.id) if design is None else None
    clients = data_files.load_clients(config.clients, mapping, ids, design)
    test = config.test
    if config.partition is not None:
        if len(clients) != 1:
            raise ConfigError(
                f"--partition cuts up one data set, but {len(clients)} paths match "
                f"{config.clients!r}; leave one of the two out"
            )
        if test is None and data_files.has_split(config.clients, "test"):
            test = config.clients
    elif len(clients) == 1:
        raise ConfigError(
            f"{config.clients!r} is one data set, and a federation needs at least two clients; "
            "quote a glob that matches several, or cut it up: --partition iid:10"
        )
    tests = [] if test is None else [data_files.load(test, "test", mapping, ids, design)]
    if design is not None:
        return Sources(clients, tests, mapping, design)
    origins = [found.origin for found in (*clients, *tests) if found.origin is not None]
    mapping.check_used(
        (source for origin in origins for source in origin.sources),
        (data_files.name_of(origin.path) for origin in origins if origin.path is not None),
    )
    if tests:
        data_files.check_classes([*clients, *tests], mapping)
        tests = data.align(tests, clients[0].classes)
        data.check_alike([clients[0], *tests])
    return Sources(clients, tests, mapping)


def cut(config: RunConfig, sources: Sources, embed: partition.Embed) -> list[Dataset]:
    """Cut the one data set into clients, if the configuration says how.

    Args:
        embed: makes features, for a partition that goes by them.
    """
    spec = config.partition
    if config.clients is None and spec is None:
        spec = "dirichlet:10:0.5"
    if spec is None:
        return sources.datasets
    rng = np.random.default_rng([config.seed, _PARTITION])
    return partition.parse(spec).split(sources.datasets[0], rng, embed)


def _embedded(
    config: RunConfig, method: AnyMethod, progress: Progress | None, dataset: Dataset
) -> NDArray[np.floating]:
    """Return features of all rows before they are cut up; a network's are in the cache then."""
    backbone = choose_backbone(config, method, dataset)
    return extract(backbone, [dataset], progress)[0].features


def account_for(sources: Sources, progress: Progress | None = None) -> Accounts:
    """Look at every row once, and account for all data sets together."""
    total = sum(len(dataset) for dataset in (*sources.datasets, *sources.tests))
    reads, done = [], 0
    for dataset in (*sources.datasets, *sources.tests):

        def advance(what: str, rows: int, _of: int, before: int = done) -> None:
            if progress is not None:
                progress(what, before + rows, total)

        reads.append(accounting.read(dataset, progress=advance))
        done += len(dataset)
    clients = reads[: len(sources.datasets)]
    test = reads[-1] if sources.tests else None
    sites = tuple(accounting.account(found, test) for found in clients)
    between = compare(clients, sources.mapping.meant)
    own = [finding for site in sites for finding in site.findings]
    return Accounts(sites, accounting.ranked([*own, *between]), test is not None)


def _check_several_classes(clients: Sequence[Dataset]) -> None:
    if all(client.targets is not None for client in clients):
        return
    there = {name for client in clients for name in np.unique(client.labels).tolist()}
    if len(there) < 2:
        name = clients[0].classes[there.pop()]
        raise DataError(
            f"all rows of all clients are of one class, {name!r}, and a classifier tells classes "
            "apart; add rows of another class, or check the labels"
        )


def check_not_all_zero(client: ClientData) -> None:
    """Raise DataError for a client with nothing but zeros."""
    if not client.features.any():
        raise DataError(
            f"all features of client {client.name!r} are zero, of which nothing can be learned; "
            "export them anew, or leave the client out"
        )


def _check_public(config: RunConfig) -> None:
    """Refuse public data that are a client's or the test set's."""
    if config.public is None:
        return
    own = data_files.client_paths(config.clients) if config.clients is not None else []
    others = [*own, *([Path(config.test)] if config.test is not None else [])]
    public = Path(config.public).resolve()
    if any(path.resolve() == public or public in path.resolve().parents for path in others):
        raise ConfigError(
            f"--public {config.public} holds clients' or test data; name data that are nobody's "
            "secret"
        )


def check_parties(clients: Sequence[Dataset]) -> None:
    """Raise DataError or ConfigError unless these can be the clients of a federation."""
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


def hold_out(clients: Sequence[Dataset], config: RunConfig) -> tuple[list[Dataset], list[Dataset]]:
    """Return each client's training rows, and held-out rows of those that have enough."""
    rng = np.random.default_rng([config.seed, _HOLDOUT])
    pairs = [data.split_holdout(client, config.holdout, rng) for client in clients]
    return [train for train, _ in pairs], [held for _, held in pairs if held is not None]


def choose_backbone(config: RunConfig, method: AnyMethod, example: Dataset) -> Backbone:
    """Return the configured backbone, or the default for this kind of data."""
    design = design_of(config)
    if design is not None:
        return table_backbone(design)
    spec = config.backbone
    if method.images:
        if spec not in (None, "identity"):
            raise ConfigError(
                f"{config.method}, as it is set, learns from pixels, not from features of "
                f"{spec!r}; allowed: identity. Leave --backbone out, or train --architecture linear"
            )
        spec = "identity"
    if spec is None:
        images = "projection:512" if config.clients is None else "timm:resnet18"
        spec = images if example.holds_images else "identity"
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    return parse_backbone(spec, checkpoint, config.image_size, config.seed, default_path())


def extract(
    backbone: Backbone, datasets: Sequence[Dataset], progress: Progress | None
) -> list[ClientData]:
    """Return the features of every data set, from the cache where they are in it."""
    cache = FeatureCache(default_path())
    total = sum(len(dataset) for dataset in datasets)
    done = 0
    extracted = []
    for dataset in datasets:

        def advance(what: str, rows: int, _of: int, before: int = done) -> None:
            if progress is not None:
                progress(what, before + rows, total)

        features = backbone.extract(dataset, cache, advance)
        extracted.append(ClientData.of(dataset, features))
        done += len(dataset)
    return extracted


def lineages(config: RunConfig, clients: Sequence[Dataset]) -> dict[str, str]:
    """Return what ledgers know the clients' data by: the file or folder of each.

    Clients cut out of one data set share its lineage: another cut is no new data.
    """
    if config.clients is None:
        return {client.name: "scikit-learn digits" for client in clients}
    paths = data_files.client_paths(config.clients)
    if config.partition is not None:
        return {client.name: str(paths[0].resolve()) for client in clients}
    return {client.name: str(path.resolve()) for client, path in zip(clients, paths, strict=True)}
