"""Results in a folder: nothing is deleted that no run made, and no half of a result is left."""

import json
from pathlib import Path

import pytest

from secure_afl.errors import ConfigError, DataError
from secure_afl.methods.model import LinearModel
from secure_afl.runs.run import resume, run
from secure_afl.runs.saving import MADE
from tests.kit.stopped import NAMES, Site, killed_before


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURE_AFL_CACHE", str(tmp_path_factory.mktemp("cache") / "features"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, ledger=None, new_ledger=None)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_folder_of_images_called_personal_stays_as_it_is(site: Site) -> None:
    image = site.out / "personal" / "cat" / "1.png"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"pixels")
    site.run()
    assert image.read_bytes() == b"pixels"
    with pytest.raises(ConfigError, match=r"personal/cat is in the way.*move it away"):
        run(site.config.replaced(method="fedhip"))
    assert image.read_bytes() == b"pixels"


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "report.json"])
def test_files_that_no_run_made_are_refused_before_work_begins(site: Site, name: str) -> None:
    site.out.mkdir()
    (site.out / name).write_text("mine")
    (site.folder / "sites" / "north.npz").write_bytes(b"what would be read next")
    with pytest.raises(ConfigError, match=f"{name} is in the way"):
        site.run()
    assert files(site.out) == {name: b"mine"}


def test_a_file_that_was_changed_since_is_not_replaced(site: Site) -> None:
    site.run()
    card = site.out / "model.json"
    card.write_text(card.read_text().replace("afl", "AFL"))
    with pytest.raises(ConfigError, match=r"model\.json is in the way: .* changed since"):
        site.run()
    card.unlink()
    site.run()


def test_personal_models_of_an_earlier_run_go_with_it(site: Site) -> None:
    run(site.config.replaced(method="fedhip"))
    assert {path.stem for path in (site.out / "personal").iterdir()} == set(NAMES)
    own = site.out / "personal" / "north.json"
    own.write_text("mine")
    site.run()
    assert [path.name for path in (site.out / "personal").iterdir()] == ["north.json"]
    own.unlink()
    run(site.config.replaced(method="fedhip"))
    site.run()
    assert not (site.out / "personal").exists()


def test_the_list_names_all_files_and_none_outside(site: Site) -> None:
    run(site.config.replaced(method="fedhip"))
    made = json.loads((site.out / MADE).read_text())
    assert set(made["files"]) == set(files(site.out)) - {MADE}
    victim = site.folder / "victim.json"
    victim.write_text("outside")
    made["files"]["../victim.json"] = ["0" * 64]
    (site.out / MADE).write_text(json.dumps(made))
    site.run()
    assert victim.read_text() == "outside"


def test_a_damaged_list_is_refused(site: Site) -> None:
    site.run()
    (site.out / MADE).write_text("{")
    with pytest.raises(ConfigError, match="lists what runs made"):
        site.run()


@pytest.mark.parametrize("change", range(16, 44, 3))
def test_no_model_is_ever_beside_the_card_of_another(site: Site, change: int) -> None:
    run(site.config.replaced(method="fedhip"))
    old = files(site.out)

    def again() -> None:
        run(site.config.replaced(method="fedhip", ridge=7.0))

    assert killed_before(change, again)
    for path in (site.out / "model.safetensors", site.out / "personal" / "west.safetensors"):
        name = path.relative_to(site.out).as_posix()
        card = name.replace("safetensors", "json")
        try:
            _, loaded = LinearModel.load(path)
        except DataError:
            continue
        is_old = path.read_bytes() == old[name]
        assert is_old == (loaded["ridge"] != 7.0)
        assert (path.with_suffix(".json").read_bytes() == old[card]) == is_old
    resume(site.out)
    for path in site.out.rglob("*.safetensors"):
        assert LinearModel.load(path)[1]["ridge"] == 7.0
    assert not list(site.out.glob(".saving-*"))
