"""Tuning: accuracy against ε, from many real runs, beside DP-SGD and beside no privacy at all.

A point is one run with one setting and one seed. Points are written as they are done, so that an
interrupted sweep goes on where it stopped, unless the data have changed.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from secure_afl.analytic.rows import ClientData, digest_rows, pooled
from secure_afl.data.dataset import Dataset
from secure_afl.journal import Journal
from secure_afl.progress import Progress
from secure_afl.runs.choose import make_method, make_privacy, make_protocol, make_terms
from secure_afl.runs.config import RunConfig
from secure_afl.runs.prepare import Prepared, prepare
from secure_afl.runs.run import check_terms, federate
from secure_afl.runs.saving import check_folder
from secure_afl.tuning.audit import audit
from secure_afl.tuning.dpsgd import train_dpsgd
from secure_afl.tuning.outcomes import Outcome, statement, summarise
from secure_afl.tuning.picture import draw
from secure_afl.tuning.points import Point, check_data, check_settings, noise_cohort, points
from secure_afl.tuning.settings import Sweep

POINTS = "points.jsonl"


def tune(
    config: RunConfig, sweep: Sweep, out: Path, progress: Progress | None = None
) -> list[Outcome]:
    """Run what is not yet done, and return everything.

    Args:
        config: the run that is tuned.
        out: folder; the journal in it keeps what is done.

    Raises:
        ConfigError: a setting of any point that cannot be used, before the first is run.
        SecureAflError, ProtocolError: of the first point that cannot be run.
    """
    check_folder(out)
    wanted = points(config, sweep)
    check_settings(wanted)
    prepared: dict[int, Prepared] = {}

    def check(clients: Sequence[Dataset]) -> None:
        for point in wanted:
            check_terms(point.config, make_terms(point.config), len(clients))

    for seed in range(config.seed, config.seed + sweep.seeds):
        seeded = config.replaced(seed=seed)
        terms = make_terms(seeded.replaced(epsilon=sweep.epsilons[0]))
        prepared[seed] = prepare(seeded, terms, progress, check)
        if seed == config.seed:
            check_data(wanted, prepared[seed])
    data = {seed: data_digest(rows) for seed, rows in prepared.items()}
    keys = [point.key(data[point.config.seed]) for point in wanted]
    journal = Journal(out / POINTS, Outcome)
    for index, (point, key) in enumerate(zip(wanted, keys, strict=True)):
        if progress is not None:
            progress("points", index, len(wanted))
        if journal.find(key) is None:
            seed = point.config.seed
            journal.add(key, run_point(point, prepared[seed], data[seed], progress))
    if progress is not None:
        progress("points", len(wanted), len(wanted))
    return [outcome for key in keys if (outcome := journal.find(key)) is not None]


def data_digest(prepared: Prepared) -> str:
    """Hash all that figures come from: names, rows, labels, classes, what made them; hex."""
    test = [] if prepared.test is None else [prepared.test]
    public = [] if prepared.public is None else [_as_rows(prepared.public)]
    parts = [digest_rows(part) for part in (prepared.clients, prepared.holdout, test, public)]
    hashed = hashlib.sha256(prepared.backbone.digest)
    hashed.update(msgspec.json.encode(prepared.classes))
    return hashlib.sha256(hashed.digest() + b"".join(parts)).hexdigest()


def run_point(
    point: Point, prepared: Prepared, data: str, progress: Progress | None = None
) -> Outcome:
    """Run one point on prepared rows with this digest."""
    config = point.config
    if point.kind == "audit":
        return _run_audit(point, prepared, data, progress)
    if point.kind == "dp-sgd":
        return _run_dpsgd(point, prepared, data)
    if point.kind == "exact":
        # Without noise there is nothing that fewer dimensions would help against.
        prepared = dataclasses.replace(prepared, public=None)
    report = federate(config, make_terms(config), prepared).report
    spent = report.seconds
    return Outcome(
        point,
        report.accuracy.federated,
        report.privacy.noise_multiplier if report.privacy else None,
        report.feature_dim,
        None,
        spent.statistics + spent.protect + spent.aggregate + spent.solve,
        data,
        noise_cohort(config, len(prepared.clients)),
    )


def save(config: RunConfig, sweep: Sweep, outcomes: Sequence[Outcome], out: Path) -> None:
    """Write `tune.json`, with every point, and `tune.png` into a folder."""
    content = {
        "settings": config.flat(),
        "sweep": msgspec.to_builtins(sweep),
        "read_first": statement(config, outcomes),
        "summaries": msgspec.to_builtins(summarise(outcomes)),
        "points": msgspec.to_builtins(list(outcomes)),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (out / "tune.json").write_text(text, encoding="utf-8", newline="\n")
    draw(outcomes, out / "tune.png")


def _as_rows(features: NDArray[np.floating]) -> ClientData:
    return ClientData("public", features, np.zeros(len(features), dtype=np.int64))


def _run_audit(point: Point, prepared: Prepared, data: str, progress: Progress | None) -> Outcome:
    privacy = make_privacy(point.config)
    cohort = noise_cohort(point.config, len(prepared.clients))
    assert privacy is not None, "audits are of a promise"
    assert cohort is not None, "audits are of clients' noise"

    found = audit(
        privacy,
        tests=point.tests,
        cohort=cohort,
        protocol=make_protocol(point.config),
        method=make_method(point.config),
        corrupt=point.config.corrupt,
        progress=progress,
    )
    return Outcome(point, None, None, None, found.lower_bound, found.seconds, data, cohort)


def _run_dpsgd(point: Point, prepared: Prepared, data: str) -> Outcome:
    privacy, test = make_privacy(point.config), prepared.test
    assert privacy is not None, "DP-SGD is for privacy"
    assert test is not None, "checked before"
    rows = pooled(list(prepared.clients))
    begin = perf_counter()
    trained = train_dpsgd(
        rows.features,
        rows.labels,
        prepared.classes,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        neighbours=privacy.neighbours,
        settings=point.dpsgd,
        seed=point.config.seed,
    )
    seconds = perf_counter() - begin
    accuracy = trained.model.accuracy(test.features, test.labels)
    dim = rows.features.shape[1]
    return Outcome(point, accuracy, trained.noise_multiplier, dim, None, seconds, data)
