import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import msgspec
import numpy as np
import pytest
from PIL import Image

from secure_afl.federation.report import Report
from secure_afl.methods import AFL, FedHiP
from secure_afl.methods.model import LinearModel
from secure_afl.runs.choose import make_method
from secure_afl.runs.config import RunConfig
from secure_afl.runs.settings import make_config
from tests.kit.commands import Command

CLASSES = ("circle", "square")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SECURE_AFL_CACHE", str(folder / "features.sqlite"))


def draw(path: Path, kind: str, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 60, (9, 9, 3), dtype=np.uint8)
    rows, columns = np.mgrid[-4:5, -4:5]
    ring = rows**2 + columns**2 <= 9 if kind == "circle" else abs(rows) + abs(columns) >= 5
    pixels[ring] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    """Three sites of image folders, and a test folder."""
    rng = np.random.default_rng(0)
    sizes = {"sites/a": (6, 5), "sites/b": (4, 8), "sites/c": (7, 0), "test": (10, 10)}
    for folder, counts in sizes.items():
        for kind, count in zip(CLASSES, counts, strict=True):
            for number in range(count):
                draw(tmp_path / folder / kind / f"{number}.png", kind, rng)
    return tmp_path


def save_features(path: Path, rows: int, seed: int, **more: Any) -> None:
    rng = np.random.default_rng([7, seed])
    labels = rng.integers(0, 3, rows)
    features = np.eye(3, 5)[labels] + 0.3 * rng.standard_normal((rows, 5))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, features=features, labels=labels, **more)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """Four sites of feature files, and one to test on."""
    for number, rows in enumerate((30, 12, 25, 40)):
        save_features(tmp_path / "sites" / f"s{number}.npz", rows, number)
    save_features(tmp_path / "test.npz", 60, 99)
    return tmp_path


def medmnist(path: Path, train: int = 40, test: int = 20) -> Path:
    rng = np.random.default_rng(5)
    arrays: dict[str, Any] = {}
    for split, rows in (("train", train), ("val", 4), ("test", test)):
        labels = np.arange(rows) % 2
        images = rng.integers(0, 60, (rows, 6, 6), dtype=np.uint8)
        images[labels == 1, :3] += 150
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
    np.savez(path, **arrays)
    return path


def reported(command: Command, tmp_path: Path, *arguments: object) -> Report:
    """The report of a run, as a program reads it."""
    file = tmp_path / "report-of-run.json"
    command.well("run", *arguments, "--json", file)
    return msgspec.json.decode(file.read_bytes(), type=Report)


def timeless(report: Report) -> dict[str, Any]:
    """A report without what two equal runs differ in."""
    plain: dict[str, Any] = msgspec.to_builtins(report)
    return {name: value for name, value in plain.items() if name not in ("session", "seconds")}


DIGITS = ("--partition", "iid:3", "--backbone", "identity")


@pytest.mark.slow
def test_demo_is_exact_and_says_so(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "demo.json"
    outcome = command.well("demo", "--json", file)
    (runs,) = json.loads(file.read_text(encoding="utf-8")).values()
    assert list(json.loads(file.read_text(encoding="utf-8"))) == ["runs"]
    assert [run["method"] for run in runs] == ["afl"] * 5 + ["fedhip"]
    for run in runs:
        assert run["exact"] is True
        assert run["clients"] == {"total": 10, "included": 8, "dropped": 2}
        assert run["privacy"] is None
        assert run["bytes"]["plain_float64_per_client"] == (512 * 512 + 512 * 10) * 8
        most = 1.05 if run["protocol"] in ("ckks", "bfv") else 0.27
        assert run["bytes"]["upload_per_client"] < most * run["bytes"]["plain_float64_per_client"]
        assert run["accuracy"]["federated"] > 0.9
        assert abs(run["accuracy"]["federated"] - run["accuracy"]["centralised_float"]) <= 0.01
        assert run["accuracy"]["federated"] > run["accuracy"]["local_mean"]
    protocols = [run["protocol"] for run in runs]
    assert protocols == ["plain", "additive", "pairwise", "ckks", "bfv", "additive"]
    assert runs[5]["accuracy"]["personal_mean"] is not None
    assert len(re.findall(r"│ +yes │", outcome.out)) == len(runs)
    assert "8 of 10" in outcome.out
    assert "protects nothing" in " ".join(outcome.out.split())


@pytest.mark.slow
def test_an_unverified_run_says_so(command: Command) -> None:
    for protocol in ("ckks", "bfv"):
        verified = command.well("run", *DIGITS, "--protocol", protocol)
        assert "NOT VERIFIED" not in verified.out
        outcome = command.well("run", *DIGITS, "--protocol", protocol, "--no-verify")
        assert "NOT VERIFIED" in " ".join(outcome.out.split())


def test_json_on_standard_output_is_json(command: Command) -> None:
    outcome = command.well("run", *DIGITS, "--json", "-")
    assert json.loads(outcome.out)["exact"] is True


def test_a_run_on_image_folders(command: Command, sites: Path) -> None:
    report = reported(
        command, sites, "--clients", sites / "sites/*", "--test", sites / "test",
        "--backbone", "projection:40",
    )  # fmt: skip
    assert report.exact
    assert (report.clients.total, report.clients.included) == (3, 3)
    assert (report.examples, report.feature_dim, report.classes) == (30, 40, 2)
    assert report.accuracy.federated is not None
    assert report.accuracy.federated > 0.9


def test_images_can_be_resized(command: Command, sites: Path) -> None:
    plain = reported(
        command, sites, "--clients", sites / "sites/*", "--backbone", "identity", "--image-size", 8
    )
    assert plain.feature_dim == 8 * 8 * 3
    assert plain.exact


def test_a_run_on_feature_files(command: Command, tables: Path) -> None:
    report = reported(
        command, tables, "--clients", tables / "sites/*.npz", "--test", tables / "test.npz"
    )
    assert report.exact
    assert (report.examples, report.feature_dim, report.classes) == (107, 5, 3)
    assert report.max_rows == 32 + 16 + 32 + 64
    assert report.accuracy.federated is not None
    assert report.accuracy.federated > 0.9
    assert report.settings["clients"] == str(tables / "sites/*.npz")


def test_a_medmnist_file_is_tested_on_its_own_test_split(command: Command, tmp_path: Path) -> None:
    file = medmnist(tmp_path / "med.npz")
    report = reported(
        command, tmp_path, "--clients", file, "--partition", "dirichlet:4:0.5",
        "--backbone", "identity",
    )  # fmt: skip
    assert report.exact
    assert (report.clients.total, report.examples, report.feature_dim) == (4, 40, 36)
    assert report.accuracy.federated is not None
    assert report.accuracy.federated >= 0.9


def test_a_test_set_that_is_named_goes_before_the_files_own(
    command: Command, tmp_path: Path
) -> None:
    file, other = medmnist(tmp_path / "med.npz"), tmp_path / "other.npz"
    wrong = np.full((6, 6, 6), 20, np.uint8)
    wrong[:, :3] = 200
    np.savez(other, images=wrong, labels=np.zeros(6, np.int64))
    report = reported(
        command, tmp_path, "--clients", file, "--test", other, "--partition", "iid:3",
        "--backbone", "identity",
    )  # fmt: skip
    assert report.accuracy.federated == 0.0


def test_a_named_test_set_is_used_with_the_embedded_digits_or_refused(
    command: Command, tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere"
    assert "nowhere" in command.badly("run", *DIGITS, "--test", missing)


def test_settings_reach_the_federation(command: Command, tmp_path: Path) -> None:
    report = reported(
        command, tmp_path, *DIGITS, "--feature-bits", 6, "--max-rows", 1000, "--ridge", 2,
        "--min-cohort", 3, "--method", "fedhip", "--alpha", 4, "--holdout", 0.1,
        "--personal", "proximal",
    )  # fmt: skip
    assert (report.feature_bits, report.max_rows, report.ridge) == (6, 3000, 2.0)
    assert (report.min_cohort, report.method) == (3, "fedhip")
    assert report.accuracy.personal_mean is not None
    assert report.settings["personal"] == "proximal"
    assert report.examples is not None
    assert report.examples < 1438
    assert report.exact


def test_clients_that_are_dropped_are_not_in_the_sum(command: Command, tmp_path: Path) -> None:
    arguments = ("--partition", "sizes:40,30,50,20", "--backbone", "identity")
    everybody = reported(command, tmp_path, *arguments)
    report = reported(command, tmp_path, *arguments, "--drop", 1)
    assert (report.clients.total, report.clients.included, report.clients.dropped) == (4, 3, 1)
    assert report.exact
    assert everybody.examples is not None
    assert report.examples is not None
    assert everybody.examples - report.examples in (40, 30, 50, 20)


def test_equal_seeds_give_equal_reports(command: Command, tmp_path: Path) -> None:
    arguments = (
        "--partition", "dirichlet:4:0.3", "--backbone", "projection:30", "--drop", 1,
        "--holdout", 0.2, "--method", "fedhip", "--min-cohort", 2,
    )  # fmt: skip
    first, second = (reported(command, tmp_path, *arguments, "--seed", 5) for _ in range(2))
    assert timeless(first) == timeless(second)
    assert first.session != second.session
    other = reported(command, tmp_path, *arguments, "--seed", 6)
    assert first.max_rows != other.max_rows or first.examples != other.examples
    assert timeless(first)["accuracy"] != timeless(other)["accuracy"]


@pytest.mark.slow
def test_the_seed_governs_the_partition(command: Command, tmp_path: Path) -> None:
    arguments = ("--partition", "dirichlet:4:0.3", "--backbone", "identity", "--min-cohort", 2)
    bounds = {reported(command, tmp_path, *arguments, "--seed", n).max_rows for n in range(4)}
    assert len(bounds) > 1


@pytest.mark.slow
def test_the_seed_governs_who_is_dropped(command: Command, tmp_path: Path) -> None:
    arguments = ("--partition", "sizes:10,20,40,80", "--backbone", "identity", "--drop", 1)
    left = {reported(command, tmp_path, *arguments, "--seed", n).examples for n in range(6)}
    assert len(left) > 1
    assert left <= {140, 130, 110, 70}


def test_the_method_has_the_parameters_that_were_given() -> None:
    given = make_config({"method": "fedhip", "alpha": 4, "ridge": 0.7, "personal": "proximal"})
    assert make_method(given) == FedHiP(alpha=4.0, ridge=0.7, personal="proximal")
    assert make_method(make_config({"ridge": 0.7})) == AFL(ridge=0.7)
    assert make_method(RunConfig()) == AFL()


def test_a_saved_model_knows_the_names_of_the_class_folders(command: Command, sites: Path) -> None:
    command.well(
        "run", "--clients", sites / "sites/*", "--backbone", "identity", "--out", sites / "out"
    )
    model, card = LinearModel.load(sites / "out" / "model.safetensors")
    assert model.classes == tuple(card["classes"]) == CLASSES


def test_a_saved_model_is_the_one_that_was_reported(command: Command, tables: Path) -> None:
    out = tables / "results" / "deep"
    report = reported(
        command, tables, "--clients", tables / "sites/*.npz", "--test", tables / "test.npz",
        "--out", out,
    )  # fmt: skip
    model, card = LinearModel.load(out / "model.safetensors")
    with np.load(tables / "test.npz") as held:
        accuracy = model.accuracy(held["features"].astype(np.float32), held["labels"])
    assert accuracy == report.accuracy.federated
    assert card["backbone"]["spec"] == "identity"
    assert len(card["backbone"]["digest"]) == 64
    assert card["classes"] == ["0", "1", "2"]
    assert card["quantiser"] == {"bits": report.feature_bits, "mode": "normalise"}
    assert (card["session"], card["cohort"]) == (report.session, 4)
    assert (card["protocol"], card["protects"]) == ("additive", report.protects)
    assert card["format_version"] == 2
    saved = msgspec.json.decode((out / "report.json").read_bytes(), type=Report)
    assert saved == report
    assert not (out / "personal").exists()


def test_personal_models_are_saved_by_client(command: Command, tables: Path) -> None:
    out = tables / "results"
    command.well(
        "run", "--clients", tables / "sites/*.npz", "--method", "fedhip", "--alpha", 9, "--out", out
    )
    whole, _ = LinearModel.load(out / "model.safetensors")
    names = sorted(path.stem for path in (out / "personal").glob("*.safetensors"))
    assert names == ["s0", "s1", "s2", "s3"]
    for name in names:
        model, card = LinearModel.load(out / "personal" / f"{name}.safetensors")
        assert card["client"] == name
        assert not np.array_equal(model.weights, whole.weights)


def test_results_may_be_written_again(command: Command, tables: Path) -> None:
    out = tables / "results"
    arguments = ("run", "--clients", tables / "sites/*.npz", "--out", out)
    sessions = []
    for _ in range(2):
        command.well(*arguments)
        sessions.append(LinearModel.load(out / "model.safetensors")[1]["session"])
    assert sessions[0] != sessions[1]


def test_settings_come_from_a_file_and_flags_go_before_them(command: Command, tables: Path) -> None:
    file = tables / "run.toml"
    file.write_text(
        f"clients = {json.dumps(str(tables / 'sites/*.npz'))}\n"
        'feature_bits = 7\nridge = 3\nmethod = "fedhip"\n',
        encoding="utf-8",
    )
    report = reported(command, tables, "--config", file, "--feature-bits", 9)
    assert (report.feature_bits, report.ridge, report.method) == (9, 3.0, "fedhip")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--clients", "nowhere/*"), r"no path matches 'nowhere/\*'"),
        (("--partition", "foo"), "'foo' is not one of iid"),
        (("--partition", "iid:1"), "at least two|≥ 2"),
        (("--backbone", "resnet"), "'resnet' is not one of identity"),
        (("--backbone", "identity", "--checkpoint", "x.pth"), "no weights to take from x.pth"),
        ((*DIGITS, "--drop", 2), "drop 2 of 3 clients leaves fewer .* allowed: ≤ 1"),
        ((*DIGITS, "--min-cohort", 4), "minimum cohort 4 of 3 clients"),
        (
            (*DIGITS, "--drop", 1, "--min-cohort", 3),
            "drop 1 of 3 clients leaves fewer than the minimum cohort 3; allowed: ≤ 0",
        ),
        ((*DIGITS, "--corrupt", 2), "2 of them declared corrupt"),
        ((*DIGITS, "--out", ""), "'out'.*non-empty"),
        ((*DIGITS, "--keys", ""), "'keys'.*non-empty"),
        ((*DIGITS, "--keys", "nowhere"), "nowhere.*no roster"),
        ((*DIGITS, "--max-rows", 10), "more rows than 10"),
        ((*DIGITS, "--ridge", 0), "singular at ridge 0"),
        ((*DIGITS, "--ridge", "inf"), "ridge"),
        ((*DIGITS, "--method", "fedhip", "--alpha", "inf"), "alpha"),
        (
            ("--method", "fedsomething"),
            "'method'.*afl, class-means, fedacnnl, fedau, fedavg",
        ),
        (("--protocol", "none"), "'protocol'.*plain"),
        (("--holdout", 1), "'holdout'.*< 1"),
        (("--seed", -1), "'seed'.*≥ 0"),
        (("--feature-bits", 13), "'feature_bits'.*≤ 12"),
        (("--config", "nowhere.toml"), "nowhere.toml"),
        ((*DIGITS, "--test", "nowhere.npz"), "nowhere.npz"),
    ],
)
def test_what_cannot_be_run_ends_in_one_line(
    command: Command, arguments: tuple[object, ...], words: str
) -> None:
    assert re.search(words, command.badly("run", *arguments))


@pytest.mark.parametrize("flag", ["--seed", "--ridge", "--nonsense"])
def test_a_flag_that_cannot_be_read_ends_without_a_traceback(command: Command, flag: str) -> None:
    outcome = command("run", flag, "many")
    assert outcome.code == 2
    assert flag.removeprefix("--") in outcome.err
    assert "Traceback" not in outcome.err


def test_a_partition_cuts_one_data_set_only(command: Command, tables: Path) -> None:
    many = ("--clients", tables / "sites/*.npz")
    assert "4 paths match" in command.badly("run", *many, "--partition", "iid:2")
    one = ("--clients", tables / "sites/s0.npz")
    assert "--partition iid:10" in command.badly("run", *one)
    report = reported(command, tables, *one, "--partition", "shards:3:2")
    assert (report.clients.total, report.examples, report.exact) == (3, 30, True)


def test_unlike_clients_and_test_sets_are_refused(command: Command, tables: Path) -> None:
    pattern = ("--clients", tables / "sites/*.npz")
    np.savez(tables / "narrow.npz", features=np.ones((3, 2)), labels=np.arange(3))
    assert "width" in command.badly("run", *pattern, "--test", tables / "narrow.npz")
    np.savez(tables / "novel.npz", features=np.ones((1, 5)), labels=np.array([7]))
    assert "class '7'" in command.badly("run", *pattern, "--test", tables / "novel.npz")
    np.savez(tables / "sites/s9.npz", features=np.full((1, 5), np.nan), labels=np.array([0]))
    assert "s9" in command.badly("run", *pattern)


def test_a_client_folder_whose_name_no_party_may_have_is_refused_by_name(
    command: Command, tables: Path
) -> None:
    save_features(tables / "sites" / "site 5.npz", 5, 5)
    assert "'site 5'" in command.badly("run", "--clients", tables / "sites/*.npz")


@pytest.mark.parametrize("flag", ["--out", "--json"])
def test_results_that_cannot_be_written_are_told_of(
    command: Command, tables: Path, flag: str
) -> None:
    taken = tables / "taken"
    taken.write_text("here first", encoding="utf-8")
    where = taken if flag == "--out" else tables / "nowhere" / "report.json"
    line = command.badly("run", "--clients", tables / "sites/*.npz", flag, where)
    assert where.name in line
    assert taken.read_text(encoding="utf-8") == "here first"


def test_doctor_finds_this_machine_fit(command: Command) -> None:
    outcome = command.well("doctor")
    for name in ("python", "numpy", "openssl", "AES", "GPU|timm", "cache", "federation +exact"):
        assert re.search(name, outcome.out), name


def test_schema_prints_one_that_validates_settings(command: Command) -> None:
    schema = json.loads(command.well("schema").out)
    jsonschema.validate({"method": "fedhip", "ridge": 0.1}, schema)
    with pytest.raises(jsonschema.ValidationError, match="fedsomething"):
        jsonschema.validate({"method": "fedsomething"}, schema)


def test_help_names_every_command_and_where_to_start(command: Command) -> None:
    text = command.well("--help").out
    for name in ("demo", "run", "doctor", "schema"):
        assert re.search(rf"^\W*{name} ", text, re.MULTILINE)
    assert "secure-afl demo" in text
    assert "--partition" in command.well("run", "--help").out


def test_help_says_what_is_required_and_what_is_taken_otherwise(command: Command) -> None:
    said = command.well("inspect", "--help").out
    assert " [required]" in said
    assert " [default: train]" in said
    assert "\\[" not in said
    assert " [required]" in command.well("roster", "show", "--help").out


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command.well("--version").out == f"secure-afl {version('secure-afl')}\n"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--epsilon", 1], "--max-rows"),
        (["--epsilon", 0, "--max-rows", 256], "epsilon"),
        (["--epsilon", 21, "--max-rows", 256], "epsilon"),
        (["--epsilon", 1, "--delta", 1, "--max-rows", 256], "delta"),
        (["--epsilon", 1, "--max-rows", 256, "--holdout", 0.2], "--holdout"),
        (["--epsilon", 1, "--max-rows", 256, "--drop", 2], "--min-cohort"),
        (["--epsilon", 1, "--max-rows", 256, "--dimension", 4000], "allowed: ≤ 512"),
        (["--epsilon", 1, "--max-rows", 256, "--ridge", 0], "ridge is 0"),
        (["--epsilon", 1, "--max-rows", 256, "--budget", 2], "--ledger"),
        (["--epsilon", 1, "--max-rows", 256, "--public", "nowhere"], "nowhere"),
        (["--epsilon", 1, "--max-rows", 256, "--unit", "household"], "unit"),
    ],
)
def test_promises_that_cannot_be_kept_are_refused(
    command: Command, flags: list[object], problem: str
) -> None:
    result = command("run", *flags)
    assert result.code == 2
    assert problem in result.err


def test_a_private_run_says_what_it_promises(command: Command, tmp_path: Path) -> None:
    report = reported(
        command, tmp_path, *DIGITS, "--epsilon", 4, "--max-rows", 1024, "--method", "fedhip",
        "--out", tmp_path / "out", "--ledger", tmp_path / "ledger.json", "--new-ledger",
    )  # fmt: skip
    assert report.exact
    assert report.examples is None
    assert report.privacy is not None
    assert (report.privacy.epsilon, report.privacy.delta) == (4.0, 1e-5)
    card = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    assert card["privacy"]["epsilon"] == 4.0
    personal = sorted((tmp_path / "out" / "personal").glob("*.json"))
    assert personal
    for file in personal:
        assert json.loads(file.read_text(encoding="utf-8"))["privacy"] is None


@pytest.mark.slow
def test_rows_that_all_sites_keep_out_are_counted(command: Command, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    outcome = command.well(
        "run",
        "--evaluate",
        0.3,
        "--same-set",
        "--drop",
        1,
        "--out",
        tmp_path / "out",
        "--json",
        report,
    )
    assert "rows kept out by all" in outcome.out
    assert "accuracy, by row" in outcome.out
    found = json.loads(report.read_text())
    assert (found["rounds"], found["exact"]) == (2, True)
    assert sum(map(sum, found["pooled"]["confusion"])) == found["pooled"]["examples"] > 200
    card = json.loads((tmp_path / "out" / "model.json").read_text())
    assert card["pooled"] == found["pooled"]
    assert "On rows that every site kept out" in (tmp_path / "out" / "report.html").read_text()
    # Held-out rows of personal models are others, and share no row with these.
    both = command.well("run", "--evaluate", 0.3, "--holdout", 0.2, "--personal", "auto")
    assert "personal model hurt" in both.out
    for share in (0, 0.95, "x"):
        assert "evaluate" in command("run", "--evaluate", share).err
    assert "no effect with afl" in command.badly("run", "--same-set")


def test_public_data_are_not_a_clients(command: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for site in ("a", "b", "c"):
        np.savez(tmp_path / f"{site}.npz", features=rng.random((40, 6)), labels=np.arange(40) % 2)
    given = ("run", "--clients", tmp_path / "*.npz", "--epsilon", 2, "--max-rows", 64)
    result = command(*given, "--public", tmp_path / "a.npz")
    assert result.code == 2
    assert "nobody's secret" in result.err
