import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from secure_afl.errors import ConfigError
from secure_afl.methods.method import METHODS
from secure_afl.runs.config import FIELDS, RunConfig
from secure_afl.runs.recovery import given_settings
from secure_afl.runs.settings import (
    check_ranges,
    declared_options,
    json_schema,
    make_config,
    setting,
)
from tests.kit.commands import run_flags

GOOD: list[dict[str, Any]] = [
    {},
    {"clients": "sites/*", "test": "test", "holdout": 0.2, "method": "fedhip"},
    {"partition": "iid:3", "backbone": "projection:64", "feature_bits": 12, "max_rows": 1},
    {"holdout": 0, "ridge": 1, "image_size": 8, "min_cohort": 2},
    {"method": "fedhip", "ridge": 1, "alpha": 0, "personal": "proximal"},
    {"protocol": "additive", "aggregators": 16, "drop": 0, "corrupt": 3},
    {"protocol": "ckks", "verify": False},
    {"protocol": "pairwise", "server_trust": "curious", "corrupt_fraction": 0.2},
    {"method": "fedavg", "architecture": "convnet", "rounds": 3, "update_clip": 2},
    {"epsilon": 1, "delta": 1e-6, "unit": "client", "noise": "central", "cross_weight": 1},
    {
        "ledger": "book",
        "new_ledger": True,
        "budget": 2,
        "delta": 1e-6,
        "public": "p.npz",
        "whiten": 0.25,
    },
    {"seed": 0, "out": "results", "checkpoint": "weights.pth", "image_size": 4096},
]

# Settings that something else has to be set for, to have an effect.
BESIDE: dict[str, dict[str, Any]] = {
    "alpha": {"method": "fedhip"},
    "reading": {"method": "fedhip"},
}

NAMES = ", ".join(sorted(METHODS))
BAD: list[tuple[str, Any, str]] = [
    ("clients", 3, "string"),
    ("test", ["a"], "string"),
    ("holdout", 1.0, "≥ 0 and < 1"),
    ("holdout", -0.1, "≥ 0 and < 1"),
    ("holdout", "0.2", "number"),
    ("partition", 10, "string"),
    ("image_size", 7, "≥ 8 and ≤ 4096"),
    ("image_size", 4097, "≥ 8 and ≤ 4096"),
    ("image_size", 64.5, "integer"),
    ("feature_bits", 0, "≥ 1 and ≤ 12"),
    ("feature_bits", 13, "≥ 1 and ≤ 12"),
    ("feature_bits", "8", "integer"),
    ("max_rows", 0, "≥ 1"),
    (
        "method",
        "AFL",
        NAMES,
    ),
    (
        "method",
        1,
        NAMES,
    ),
    ("ridge", -1, "≥ 0"),
    ("ridge", True, "number"),
    ("alpha", -0.5, "≥ 0"),
    ("reading", "nearby", "joint, proximal"),
    ("protocol", "none", "plain"),
    ("aggregators", 1, "≥ 2 and ≤ 16"),
    ("aggregators", 17, "≥ 2 and ≤ 16"),
    ("drop", -1, "≥ 0"),
    ("drop", True, "integer"),
    ("min_cohort", 1, "≥ 2"),
    ("corrupt", -1, "≥ 0"),
    ("seed", -1, "≥ 0"),
    ("seed", "x", "integer"),
    ("out", 1, "string"),
]


def write(tmp_path: Path, text: str | bytes) -> Path:
    file = tmp_path / "run.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("settings", GOOD)
def test_good_settings_are_taken_and_fit_the_schema(settings: dict[str, Any]) -> None:
    config = make_config(settings).flat()
    for name, value in settings.items():
        assert config[name] == value
    jsonschema.validate(settings, json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize(("field", "value", "allowed"), BAD)
def test_a_bad_value_is_refused_with_its_field_and_what_is_allowed(
    field: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"seed": 3, **BESIDE.get(field, {}), field: value})
    message = str(caught.value)
    assert f"'{field}'" in message
    assert repr(value) in message
    assert allowed in message.partition("allowed: ")[2]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({field: value}, json_schema(), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("field", ["ridge", "alpha", "holdout"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"'{field}'.*allowed: number"):
        make_config({**BESIDE.get(field, {}), field: value})


def test_an_unknown_field_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown field 'clinets'; did you mean clients\?"):
        make_config({"clinets": "sites/*"})
    with pytest.raises(ConfigError, match=r"unknown field 'zigzag'; allowed: .*max-rows, "):
        make_config({"zigzag": 3})
    with pytest.raises(jsonschema.ValidationError, match="clinets"):
        jsonschema.validate({"clinets": "x"}, json_schema(), jsonschema.Draft202012Validator)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_flags_override_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, 'method = "fedhip"\nridge = 2\nseed = 7\nclients = "Zürich/*"\n')
    config = make_config({"seed": 9, "alpha": 3.0}, file)
    expected = RunConfig(method="fedhip", seed=9, clients="Zürich/*")
    assert config == expected.replaced(ridge=2.0, alpha=3.0)
    assert make_config({}, file) == expected.replaced(ridge=2.0, seed=7)


def test_a_flag_can_mend_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, "feature_bits = 99\n")
    with pytest.raises(ConfigError, match="'feature_bits': 99"):
        make_config({}, file)
    assert make_config({"feature_bits": 9}, file).feature_bits == 9


@pytest.mark.parametrize(
    "text",
    ["method = ", "a = 1\na = 2", b"caf\xe9 = 1", "[table]\nmethod = 'afl'", "method = 'AFL'"],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml|'table'|'method'.*afl, class-means"):
        make_config({}, write(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(ConfigError, match=path.name):
            make_config({}, path)


def test_keys_may_have_dashes_like_the_flags(tmp_path: Path) -> None:
    assert make_config({}, write(tmp_path, "max-rows = 3\n")).max_rows == 3
    assert make_config({}, write(tmp_path, "max_rows = 3\n")).max_rows == 3


def test_every_setting_is_a_flag_of_run() -> None:
    flags = run_flags()
    for name in (*FIELDS, *declared_options()):
        found, text = flags.pop("--" + name.replace("_", "-"))
        assert (found, text) == (name, setting(name).description)
        flags.pop("--no-" + name, None)
    assert set(flags) - {"--help"} == {"--config", "--json", "--resume"}


def test_every_setting_is_described() -> None:
    for name in (*FIELDS, *declared_options()):
        text = setting(name).description
        assert text.endswith(".")
        assert len(text) > 15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"head": "lda", "method": "fedavg"},
            "--head has no effect with fedavg .* afl",
        ),
        (
            {"method": "fedavg", "ridge": 1.0},
            "--ridge has no effect with fedavg .* afl or fedacnnl or fedhip",
        ),
        ({"method": "fedsgd", "local_epochs": 2}, "--local-epochs has no effect .* fedavg"),
        ({"rounds": 3}, "--rounds has no effect .* fed(avg|sgd) or fed(avg|sgd)"),
        ({"protocol": "plain", "aggregators": 3}, "--aggregators has no effect .* additive"),
        ({"verify": True}, "--verify has no effect .* ckks or bfv"),
        ({"server_trust": "lying"}, "--server-trust has no effect .* pairwise"),
        ({"whiten": 0.25}, "--whiten has no effect without --public"),
        ({"delta": 1e-6}, "--delta has no effect without --epsilon or --budget"),
        ({"unit": "client"}, "--unit has no effect without --epsilon or --budget"),
        ({"neighbours": "add-remove"}, "--neighbours has no effect without --epsilon"),
        ({"noise": "distributed"}, "--noise has no effect without --epsilon"),
        ({"cross_weight": 0.8}, "--cross-weight has no effect without --epsilon"),
        ({"budget": 3.0}, "--budget has no effect without --ledger"),
        ({"new_ledger": True}, "--new-ledger has no effect without --ledger"),
        ({"method": "fedavg", "feature_bits": 8}, "--feature-bits has no effect with fedavg"),
    ],
)
def test_a_setting_without_effect_is_refused_by_its_name(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        make_config(settings)
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in settings.items()]
    with pytest.raises(ConfigError, match=said):
        make_config({}, write(tmp_path, "".join(lines)))


def test_a_key_with_a_dash_and_without_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'min_cohort' twice"):
        make_config({}, write(tmp_path, "min-cohort = 3\nmin_cohort = 4\n"))
    jsonschema.validate({"min-cohort": 3}, json_schema(), jsonschema.Draft202012Validator)


def test_reports_have_all_options_that_were_in_effect() -> None:
    flat = make_config({"method": "fedhip", "alpha": 2.0, "protocol": "ckks"}).flat()
    wanted = {"alpha": 2.0, "personal": "joint", "ridge": None, "verify": True, "seed": 0}
    assert wanted.items() <= flat.items()
    assert not {"aggregators", "rounds"} & flat.keys()


def test_what_the_caller_supplies_counts_as_set() -> None:
    assert make_config({"delta": 1e-6}, supplied=["epsilon"]).delta == 1e-6
    config = make_config({"alpha": 2.0, "rounds": 4}, methods=["afl", "fedhip", "fedsgd"])
    assert (config.option("alpha"), config.option("rounds")) == (2.0, 4)
    with pytest.raises(ConfigError, match="no effect with afl and fedhip and additive"):
        make_config({"rounds": 4}, methods=["afl", "fedhip"])


def test_options_are_for_those_that_declare_them() -> None:
    config = make_config({"method": "fedhip", "alpha": 2, "ridge": 3})
    assert config.given_to(METHODS["fedhip"]) == {"alpha": 2.0, "ridge": 3.0}
    assert config.given_to(METHODS["afl"]) == {"alpha": 2.0, "ridge": 3.0}
    assert config.replaced(alpha=None).options == (("ridge", 3.0),)
    with pytest.raises(ConfigError, match="'ridge': -1"):
        check_ranges(config.replaced(ridge=-1.0))
    with pytest.raises(ConfigError, match="'holdout': 2"):
        check_ranges(config.replaced(holdout=2.0))


def test_defaults_are_those_of_an_empty_file(tmp_path: Path) -> None:
    assert make_config({}, write(tmp_path, "")) == RunConfig() == make_config({})
    assert tomllib.loads("") == {}


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({}, "afl"),
        ({"epsilon": 1.0}, "private-gradient"),
        ({"epsilon": 1.0, "rounds": 7}, "private-gradient"),
        ({"epsilon": 1.0, "prior": "uniform"}, "private-gradient"),
        ({"epsilon": 1.0, "unit": "patient", "id": "{id}_*", "clients": "x"}, "private-gradient"),
        ({"epsilon": 1.0, "ridge": 0.1}, "afl"),
        ({"epsilon": 1.0, "cross_weight": 0.5}, "afl"),
        ({"epsilon": 1.0, "personal": "prior"}, "afl"),
        ({"epsilon": 1.0, "method": "afl"}, "afl"),
    ],
)
def test_a_run_with_noise_has_noisy_gradients_unless_a_setting_is_not_theirs(
    settings: dict[str, Any], method: str
) -> None:
    made = make_config(settings)
    assert made.method == method
    # A run that goes on goes on with its own.
    assert make_config(given_settings(made)) == made
