"""The page of a run asks for nothing, and says what the report says."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from protocols import Additive, Plain
from secure_afl.cli.tables import _lines
from secure_afl.evaluation.figures import Figures, measure
from secure_afl.features.backbone import parse_backbone
from secure_afl.federation.report import Report
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedAvg, PrivateGradient
from secure_afl.methods.evaluated import evaluated
from secure_afl.privacy.mechanism import Privacy
from secure_afl.runs.config import RunConfig
from secure_afl.runs.inference import load_model
from secure_afl.runs.page.write import render_run, write_evaluation
from secure_afl.runs.saving import save
from tests.kit.samples import make_client, make_clients

HOSTILE = "<script>alert(1)</script>"


class Links(HTMLParser):
    """Everything that a page would fetch or run, and tags that stay open."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe"):
            self.found.append(tag)
        self.found += [f"{k}={v}" for k, v in attrs if k in ("src", "href") or k.startswith("on")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in self.open
        while self.open.pop() != tag:
            pass


def page_of(report: Report) -> str:
    text = render_run(report)
    links = Links()
    links.feed(text)
    assert links.found == []
    assert links.open == []
    return text


def test_the_page_has_the_figures_of_the_report() -> None:
    clients = make_clients((40, 30, 50))
    federation = Federation(AFL(personal="auto"), Additive())
    report = federation.run(
        clients,
        classes=("0", HOSTILE, "2"),
        test=make_client("test", 60),
        holdout=[replace(client) for client in clients],
    ).report
    text = page_of(report)
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text
    for found in report.results:
        assert f"{found.accuracy.value:.1%}" in text
        assert f"{found.balanced_accuracy.value:.1%}" in text
    assert "Reliability" in text
    assert "all aggregators" in text
    assert report.protects in text.replace("&#39;", "'")
    assert "data protection officer" in text
    assert "own model" in text
    assert "not anonymous by itself" in text
    assert report.head is not None
    # Values of the curve other than the chosen one are the receiver's.
    assert "curve" not in text


@pytest.mark.parametrize(
    ("method", "privacy", "said"),
    [
        (AFL(), Privacy(2.0), "ε = 2"),
        (FedAvg(rounds=2), None, "training steps"),
        (AFL(ridge=0.1), None, "none: the head has no prior"),
    ],
)
def test_every_kind_of_run_has_a_page(method: AFL, privacy: Privacy | None, said: str) -> None:
    federation = Federation(method, Plain(), privacy=privacy)
    report = federation.run(
        make_clients((40, 30)), classes="abc", max_rows=64, test=make_client("test", 30)
    ).report
    text = page_of(report)
    assert said in text
    assert "was <b>not</b> hidden" in re.sub(r"\s+", " ", text)


@pytest.mark.parametrize(
    ("method", "beside"), [(AFL(), "the same head of all data"), (FedAvg(rounds=1), "a ridge clas")]
)
def test_what_a_model_is_compared_with_is_named(method: AnyMethod, beside: str) -> None:
    run = Federation(method, Additive()).run(make_clients((40, 30)), test=make_client("test", 30))
    text = re.sub(r"\s+", " ", page_of(run.report))
    assert f"on the same rows: {beside}" in text
    assert "a ridge classifier of each site's data alone" in text
    lines = _lines(run.report)
    assert ("  centralised, float" in lines) == (run.report.head is not None)
    assert ("  ridge, centralised, float" in lines) == (run.report.head is None)


@pytest.mark.parametrize(
    ("privacy", "said", "unsaid"),
    [
        (
            Privacy(8.0, unit="patient"),
            ["saw anything: whether any one patient of a site took part", "to all sites"],
            ["exactly the model"],
        ),
        (
            Privacy(8.0, neighbours="replace-one"),
            ["whether any one example was this one or another", "to all sites"],
            ["took part changes"],
        ),
        (
            Privacy(8.0, placement="central"),
            ["Noise was added by the collector, to sums that it saw without"],
            ["before anybody saw", "to all sites."],
        ),
    ],
    ids=["patient", "replace-one", "central"],
)
def test_the_page_says_who_saw_noisy_sums_and_what_they_hide(
    privacy: Privacy, said: list[str], unsaid: list[str]
) -> None:
    clients = [
        replace(data, patients=[str(row // 2) for row in range(len(data))])
        for data in make_clients((20, 20, 20))
    ]
    method = PrivateGradient(rounds=5)
    report = (
        Federation(method, Additive(), privacy=privacy)
        .run(clients, classes=("0", "1", "2"), max_rows=32)
        .report
    )
    text = re.sub(r"\s+", " ", page_of(report))
    assert all(words in text for words in said)
    assert not any(words in text for words in unsaid)


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (1, "Ranges of shares are Wilson’s, at 95&nbsp;%."),
        (2, "resamples of the scored rows, whole patients at a time"),
        (None, "Each row counts for itself: if several rows are of one patient"),
    ],
)
def test_the_page_says_which_ranges_it_has(each: int | None, said: str, tmp_path: Path) -> None:
    labels = np.repeat([0, 1], 20)
    names = None if each is None else [f"p{i // each:02}" for i in range(40)]
    found = measure(4.0 * np.eye(2)[labels], labels, "ab", patients=names)
    write_evaluation(tmp_path / "page.html", [found], tmp_path, "x/test.npz", {})
    text = re.sub(r"\s+", " ", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert said in text
    assert f"100.0% {'(–)' if each == 2 else '(91.2'}" in text
    assert "100.0% (–)</td>" in text  # the AUC


def test_the_curve_is_saved_for_the_receiver_alone(tmp_path: Path) -> None:
    result = Federation(AFL(), Plain()).run(make_clients((40, 30)))
    backbone = parse_backbone("identity")
    save(result, backbone, RunConfig(), tmp_path)
    file = tmp_path / "receiver.json"
    assert file.stat().st_mode & 0o777 == 0o600
    content = json.loads(file.read_text())
    assert content["setting"] == "shrinkage"
    assert len(content["curve"]) == len(result.curve) > 10
    saved = (tmp_path / "report.json").read_text()
    assert "curve" not in saved
    assert msgspec.json.decode(saved, type=Report) == result.report
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_run(result.report)
    given = Federation(AFL(ridge=0.1), Plain()).run(make_clients((40, 30)))
    save(given, backbone, RunConfig(), tmp_path)
    assert not file.exists()


def test_the_page_has_what_all_sites_counted() -> None:
    clients = make_clients((90, 70, 80))
    rare = replace(clients[0], labels=np.where(np.arange(90) < 6, 3, clients[0].labels))
    method = evaluated(AFL(), 0.4)
    exact = Federation(method, Additive()).run(
        [rare, *clients[1:]], classes=("0", "1", "2", HOSTILE)
    )
    report = msgspec.structs.replace(exact.report, settings={"evaluate": 0.4})
    text = re.sub(r"\s+", " ", page_of(report))
    assert report.pooled is not None
    assert report.pooled.confusion[3] is None
    assert "kept 40&nbsp;% of its rows out" in text
    assert "not shown" in text
    assert "each row counting for itself: if several are of one patient" in text
    assert "No test rows were given" not in text
    assert "One further sum" in text
    for own in report.pooled.classes[:3]:
        assert own.auc is not None
        assert own.auc_error is not None
        assert f"{own.auc:.1%} ± {100 * own.auc_error:.2f}" in text
    noisy = Federation(method, Additive(), privacy=Privacy(8.0)).run(
        clients, classes="abc", max_rows=128
    )
    text = re.sub(r"\s+", " ", page_of(msgspec.structs.replace(noisy.report)))
    assert "has noise of standard deviation" in text
    assert "Each row counts for itself: if several are of one patient" in text
    assert "scored how high" not in text


def test_the_page_of_an_evaluation_says_how_the_model_was_made(tmp_path: Path) -> None:
    federation = Federation(AFL(), Additive())
    result = federation.run(make_clients((40, 30)), classes="abc", test=make_client("test", 60))
    save(result, parse_backbone("identity"), RunConfig(), tmp_path)
    saved = load_model(tmp_path)
    assert dict(saved.about)["sites in the sum"] == "2"
    alike = [result.report.results[0], replace_prior(result.report.results[0], "uniform")]
    write_evaluation(tmp_path / "page.html", alike, tmp_path, "x/test.npz", dict(saved.about))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    links = Links()
    links.feed(text)
    assert (links.found, links.open) == ([], [])
    assert "none promised" in text
    assert text.count("Confusion matrix") == 1
    assert "predictions are the same here" in text


def replace_prior(figures: Figures, prior: str) -> Figures:
    return msgspec.structs.replace(figures, prior=prior)
