"""Feature inversion on embedded digits, whose features are a random ReLU layer of their pixels."""

import os
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from attacks.attack import Known, Measure, Truth
from attacks.features.decoder import Decoder, Recipe, train_decoder
from attacks.features.differentiable import Differentiable, differentiable
from attacks.features.inversion import FeatureDecoder, FeatureInversion, ImageAttack
from attacks.features.leaks import Leak, cross_of_gradient, find_leaks
from attacks.features.optimise import Settings, invert
from attacks.features.stacks import load_stack, resize_stack
from attacks.views.run import Record, RunView
from protocols.protocol import Protocol
from protocols.schemes.additive.protocol import Additive
from protocols.schemes.plain import Plain
from secure_afl.analytic.rows import ClientData
from secure_afl.data.dataset import Dataset
from secure_afl.data.files import embedded_digits, load_clients
from secure_afl.errors import ConfigError, DataError
from secure_afl.features.backbone import Backbone, parse_backbone
from secure_afl.federation.simulation import Federation
from secure_afl.methods import AFL, AnyMethod, FedSGD
from secure_afl.methods.networks.convnet import ConvNet
from tests.kit.runs import record

# Networks are trained for most of these.
pytestmark = pytest.mark.slow

SHAPE = (8, 8, 1)
CLASSES = 10
RNG = np.random.default_rng(0)


@cache
def backbone() -> Backbone:
    return parse_backbone("projection:128", seed=1)


@cache
def digits() -> tuple[Dataset, list[Dataset]]:
    """Public digits, and six people with one digit of each class but the last."""
    whole = embedded_digits()
    rng = np.random.default_rng(4)
    by_class = [rng.permutation(np.flatnonzero(whole.labels == c)) for c in range(CLASSES)]
    people = [whole.take(np.array([rows[person] for rows in by_class[:-1]])) for person in range(6)]
    public = whole.take(np.concatenate([rows[6:] for rows in by_class]))
    return public, people


@cache
def clients() -> tuple[ClientData, ...]:
    return tuple(
        ClientData(f"c{number}", backbone().extract(person), person.labels)
        for number, person in enumerate(digits()[1])
    )


@cache
def truth() -> Truth:
    images = {
        client.name: load_stack(person, 8)[..., :1]
        for client, person in zip(clients(), digits()[1], strict=True)
    }
    return Truth(clients={client.name: client for client in clients()}, images=images)


@cache
def run(protocol: Protocol, method: AnyMethod) -> Record:
    federation = Federation(method, protocol, backbone=backbone().digest)
    names = [str(label) for label in range(CLASSES)]
    return Record(method, protocol, federation.run(clients(), classes=names, record=True))


@cache
def decoder() -> Decoder:
    return train_decoder(backbone(), digits()[0], Recipe(side=16, steps=180, copies=0, dropout=0))


def known(**extra: object) -> Known:
    return Known(extra={"backbone": backbone(), "image_shape": SHAPE, **extra})


def plain_view(method: AnyMethod | None = None) -> RunView:
    return run(Plain(), method or AFL()).view(["server"])


def blind_view() -> RunView:
    return run(Additive(), AFL()).view(["collector"])


def by_name(measures: list[Measure]) -> dict[str, Measure]:
    return {measure.metric: measure for measure in measures}


# Leaks


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 12),
    classes=st.integers(2, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_gradient_of_a_head_gives_the_cross_term(
    rows: int, classes: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.standard_normal((rows, 7)), 0)
    labels = rng.integers(0, classes - 1, rows)  # nobody has the last class
    one_hots = np.eye(classes)[labels]
    gradient = features.T @ (1 / classes - one_hots)
    np.testing.assert_allclose(cross_of_gradient(gradient), features.T @ one_hots, atol=1e-12)


@pytest.mark.parametrize("method", [AFL(), FedSGD(rounds=1)])
def test_in_plain_every_row_of_a_class_of_one_leaks(method: AnyMethod) -> None:
    leaks = find_leaks(plain_view(method), RNG)
    assert len(leaks) == 6 * 9
    for leak in leaks:
        (name,) = leak.clients
        client = truth().clients[name]
        (row,) = np.flatnonzero(client.labels == leak.label)
        assert leak.single
        true = client.features[row] / np.linalg.norm(client.features[row])
        assert float(true @ leak.feature) > 0.9999
        assert np.linalg.norm(leak.feature) == pytest.approx(1)


@pytest.mark.parametrize("method", [AFL(), FedSGD(rounds=1)])
def test_a_blind_sum_leaks_the_sums_of_its_classes(method: AnyMethod) -> None:
    view = run(Additive(), method).view(["collector"])
    leaks = find_leaks(view, RNG)
    assert [leak.label for leak in leaks] == list(range(9))
    for leak in leaks:
        assert leak.clients == truth().clients.keys()
        assert not leak.single
        rows = np.stack([client.features[leak.label] for client in clients()])
        blend = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(axis=0)
        assert float(blend @ leak.feature) / np.linalg.norm(blend) > 0.9999


def test_a_small_blind_sum_still_leaks_its_rows_but_not_whose_they_are() -> None:
    few = [
        ClientData(client.name, client.features[:5], client.labels[:5]) for client in clients()[:4]
    ]
    view = record(few, Additive(), classes=CLASSES, bits=12).view(["collector"])
    leaks = find_leaks(view, RNG)
    assert len(leaks) == 20
    assert all(leak.single and len(leak.clients) == 4 for leak in leaks)
    rows = np.concatenate([client.features for client in few])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = np.stack([leak.feature for leak in leaks]) @ rows.T
    assert (found.max(axis=0) > 0.99).all()


def test_who_has_no_sum_has_no_leaks() -> None:
    additive = run(Additive(), AFL())
    assert find_leaks(additive.view(["aggregator_1"]), RNG) == []
    assert find_leaks(additive.view([]), RNG) == []
    assert len(find_leaks(additive.view(["collector", "aggregator_1"]), RNG)) == 54


def test_later_rounds_and_other_models_are_left_alone() -> None:
    pixels = [
        ClientData(client.name, truth().images[client.name].reshape(9, 64), client.labels)
        for client in clients()
    ]
    method = FedSGD(rounds=1, architecture=ConvNet(), learning_rate=0.1)
    view = record(pixels, Plain(), method, classes=CLASSES).view(["server"])
    assert find_leaks(view, RNG) == []


# The backbone


def test_a_network_is_differentiated_as_it_extracts(tiny: Backbone) -> None:
    function = differentiable(tiny)
    assert function.shape == (32, 32, 3)
    images = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    labels = np.zeros(3, dtype=np.int64)
    expected = tiny.extract(Dataset("noise", images, labels, ("a",)))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    pixels.requires_grad_(True)
    rows = function.features(pixels)
    np.testing.assert_allclose(rows.detach().numpy(), expected, rtol=1e-3, atol=1e-5)
    (gradient,) = torch.autograd.grad(rows.sum(), pixels)
    assert gradient.abs().sum() > 0


def test_a_projection_of_pixels_is_differentiated_as_it_extracts() -> None:
    function = differentiable(backbone(), SHAPE)
    expected = clients()[0].features
    pixels = torch.from_numpy(truth().images["c0"]).permute(0, 3, 1, 2)
    np.testing.assert_allclose(function.features(pixels).numpy(), expected, atol=1e-5)


def test_pixels_have_no_shape_by_themselves() -> None:
    with pytest.raises(ConfigError, match=r"give image_shape, for example \(8, 8, 1\)"):
        differentiable(backbone())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    torch.save(model.state_dict(), path)
    return parse_backbone("timm:test_resnet,mean=0.4,std=0.3", path, image_size=32)


# Optimisation


def unit_targets(function: Differentiable, images: NDArray[np.floating]) -> NDArray[np.float32]:
    with torch.inference_mode():
        pixels = torch.from_numpy(np.asarray(images, dtype=np.float32)).permute(0, 3, 1, 2)
        rows: NDArray[np.float32] = function.features(pixels).numpy()
    return rows


def test_an_image_is_found_whose_feature_fits() -> None:
    function = differentiable(backbone(), SHAPE)
    true = truth().images["c0"]
    images, cosines = invert(function, clients()[0].features, Settings(smoothness=0.1))
    assert images.shape == true.shape
    assert images.min() >= 0
    assert images.max() <= 1
    assert (cosines > 0.99).all()
    for image, original in zip(images, true, strict=True):
        assert np.corrcoef(image.ravel(), original.ravel())[0, 1] > 0.95


def test_smoothness_is_what_it_says() -> None:
    function = differentiable(backbone(), SHAPE)
    rows = clients()[0].features[:2]

    def roughness(smoothness: float) -> float:
        images = invert(function, rows, Settings(steps=100, smoothness=smoothness)).images
        return float(np.abs(np.diff(images, axis=1)).mean())

    assert roughness(100.0) < 0.7 * roughness(0.0)


def test_the_same_seed_gives_the_same_image() -> None:
    function = differentiable(backbone(), SHAPE)
    rows = clients()[1].features[:2]
    brief = Settings(steps=20, jitter=2, seed=3)
    first, again = invert(function, rows, brief), invert(function, rows, brief)
    np.testing.assert_array_equal(first.images, again.images)
    other = invert(function, rows, Settings(steps=20, jitter=2, seed=4))
    assert not np.array_equal(first.images, other.images)


def test_what_has_no_direction_cannot_be_inverted() -> None:
    function = differentiable(backbone(), SHAPE)
    for bad in (np.zeros((1, 128)), np.full((1, 128), np.nan)):
        with pytest.raises(ConfigError, match="no direction"):
            invert(function, bad)
    with pytest.raises(ConfigError, match="64 entries, the backbone makes 128"):
        invert(function, np.ones((1, 64)))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": -1.0}, {"stages": 9}, {"jitter": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    (field,) = wrong
    with pytest.raises(ConfigError, match=field):
        Settings(**wrong)  # type: ignore[arg-type]


# The decoder


@pytest.mark.slow
def test_a_decoder_beats_the_mean_image_and_is_repeatable(tmp_path: Path) -> None:
    trained = decoder()
    images = trained.decode(clients()[0].features)
    assert images.shape == (9, 16, 16, 3)
    public = load_stack(digits()[0], 16)
    true = resize_stack(np.repeat(truth().images["c0"], 3, axis=3), 16)
    error = np.square(images - true).mean()
    assert error < 0.4 * np.square(public.mean(axis=0) - true).mean()
    # A row has a direction only.
    longer = trained.decode(3 * clients()[0].features)
    np.testing.assert_allclose(longer, images, atol=1e-4)

    trained.save(tmp_path / "decoder.safetensors")
    loaded = Decoder.load(tmp_path / "decoder.safetensors")
    assert loaded.card == trained.card
    assert loaded.digest == trained.digest
    np.testing.assert_array_equal(loaded.decode(clients()[0].features), images)


def test_the_same_recipe_gives_the_same_decoder_and_leaves_the_generator_alone() -> None:
    brief = Recipe(side=16, steps=5, copies=1)
    public = digits()[0].take(np.arange(40))
    state = torch.random.get_rng_state()
    digests = {train_decoder(backbone(), public, brief).digest for _ in range(2)}
    other = train_decoder(backbone(), public, Recipe(side=16, steps=5, copies=1, seed=1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert len(digests) == 1
    assert other.digest not in digests


@pytest.mark.slow
def test_damaged_decoders_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "decoder.safetensors"
    with pytest.raises(DataError, match="no saved decoder"):
        Decoder.load(path)
    decoder().save(path)
    tensors = load_file(path)
    tensors["centre"] = tensors["centre"] + 1
    save_file(tensors, path, {"card": "{}", "digest": ""})
    with pytest.raises(DataError, match="no saved decoder"):
        Decoder.load(path)
    decoder().save(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="digest does not fit"):
        Decoder.load(path)


def test_what_a_decoder_cannot_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wants \[n, 128\]"):
        decoder().decode(np.ones((2, 5)))
    with pytest.raises(ConfigError, match="no direction"):
        decoder().decode(np.zeros((1, 128)))
    with pytest.raises(DataError, match="at least 2"):
        train_decoder(backbone(), digits()[0].take(np.arange(1)))
    with pytest.raises(ConfigError, match="side is 24"):
        Recipe(side=24)


def test_images_of_features_are_refused() -> None:
    rows = Dataset("rows", np.ones((2, 3)), np.zeros(2, dtype=np.int64), ("a",))
    with pytest.raises(DataError, match="rows holds features, not images"):
        load_stack(rows, 8)


# The attacks


@pytest.mark.parametrize(
    ("attack", "extra"),
    [
        (FeatureInversion(Settings(smoothness=0.1), most=20), {}),
        (FeatureDecoder(), {"decoder": None}),
    ],
    ids=["inversion", "decoder"],
)
def test_in_plain_the_pictures_come_back_and_from_a_blind_sum_they_do_not(
    attack: ImageAttack, extra: dict[str, object]
) -> None:
    if "decoder" in extra:
        extra = {"decoder": decoder()}
    claim = attack.claim(plain_view(), known(**extra), np.random.default_rng(1))
    assert claim is not None
    found = by_name(attack.judge(claim, truth()))
    assert found["retrieval@1"].trials == min(attack.most, 54)
    assert found["retrieval@1"].chance == pytest.approx(1 / 6)
    assert found["retrieval@1"].low > 0.5
    if attack.name == "feature-decoder":  # optimisation cannot know how bright an image was
        assert found["PSNR over the mean image, dB"].low > 1
        assert found["SSIM"].low > found["SSIM"].chance
    assert found["centred cosine of the feature"].value > 0.999

    blended = attack.claim(blind_view(), known(**extra), np.random.default_rng(1))
    assert blended is not None
    blind = by_name(attack.judge(blended, truth()))
    assert blind["retrieval@1"].trials == 9
    assert blind["retrieval@1"].value < 0.6
    assert blind["centred cosine of the feature"].value < 0.8

    pictures = attack.pictures(claim, truth())
    assert len(pictures) == len(claim.leaks)
    assert all(picture.true.shape == picture.rebuilt.shape == SHAPE for picture in pictures)
    assert all("one row" in picture.caption for picture in pictures)
    assert "blended" in attack.pictures(blended, truth())[0].caption


def test_intervals_are_of_the_confidence_asked_for() -> None:
    attack = FeatureDecoder()
    claim = attack.claim(plain_view(), known(decoder=decoder()), RNG)
    usual, strict = attack.judge(claim, truth()), attack.judge(claim, truth(), 0.999)
    for ours, wider in zip(usual, strict, strict=True):
        assert (ours.confidence, wider.confidence) == (0.95, 0.999)
        assert wider.high - wider.low >= ours.high - ours.low


def test_without_a_sum_there_is_nothing_but_guessing() -> None:
    view = run(Additive(), AFL()).view(["aggregator_1"])
    for attack in (FeatureInversion(), FeatureDecoder()):
        assert attack.claim(view, known(), RNG) is None
        assert attack.pictures(None, truth()) == []
        measures = attack.judge(None, truth())
        assert all(measure.trials == 0 for measure in measures)
        assert all(measure.value == measure.chance for measure in measures)


def test_what_an_attack_assumes_it_must_know() -> None:
    view = plain_view()
    with pytest.raises(ConfigError, match="does not know the backbone"):
        FeatureInversion().claim(view, Known(), RNG)
    with pytest.raises(ConfigError, match="neither a decoder nor public images"):
        FeatureDecoder().claim(view, Known(), RNG)
    other = parse_backbone("projection:128", seed=2)
    with pytest.raises(ConfigError, match="the backbone has the digest"):
        FeatureInversion().claim(view, known(backbone=other), RNG)


def test_a_decoder_is_trained_where_there_are_only_public_images() -> None:
    attack = FeatureDecoder(Recipe(side=16, steps=60, copies=0))
    public = load_stack(digits()[0], 8)[..., :1]
    knows = known(public_images=public)
    claim = attack.claim(plain_view(), knows, RNG)
    assert claim is not None
    found = by_name(attack.judge(claim, truth()))
    assert found["retrieval@1"].low > 2 * found["retrieval@1"].chance
    again = attack.claim(plain_view(), knows, RNG)
    assert again is not None
    assert {leak.label for leak in again.leaks} == {leak.label for leak in claim.leaks}


def test_optimisation_may_begin_with_the_mean_of_public_images() -> None:
    brief = FeatureInversion(Settings(steps=1, rate=1e-6), most=1)
    public = np.full((3, 4, 4, 3), 0.25, dtype=np.float32)
    claim = brief.claim(plain_view(), known(public_images=public), RNG)
    grey = brief.claim(plain_view(), known(), RNG)
    assert claim is not None
    assert grey is not None
    np.testing.assert_allclose(claim.images, 0.25, atol=0.1)
    np.testing.assert_allclose(grey.images, 0.5, atol=0.1)
    with pytest.raises(ConfigError, match=r"begin with is \[4, 4, 3\], the backbone's are"):
        invert(differentiable(backbone(), SHAPE), np.ones((1, 128)), begin=public[0])


def test_nothing_shows_features() -> None:
    leak = find_leaks(blind_view(), RNG)[0]
    assert isinstance(leak, Leak)
    assert repr(leak) == "<Leak of class 0, of 6 clients>"
    claim = FeatureDecoder().claim(blind_view(), known(decoder=decoder()), RNG)
    assert repr(claim) == "<Rebuilt: 9 images>"


def test_importing_the_attacks_does_not_import_torch() -> None:
    code = "import sys; import attacks.features.inversion; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The command


def test_the_training_command_saves_a_decoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        # typer uses names that click means to remove.
        warnings.simplefilter("ignore", DeprecationWarning)
        from attacks.features import train
    images = RNG.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=np.zeros(6, dtype=np.int64))
    pattern, out = str(tmp_path / "*.npz"), tmp_path / "out" / "decoder.safetensors"
    train.main([pattern], backbone="projection:16", out=out, side=16, steps=2, copies=0)
    trained = Decoder.load(out)
    assert trained.card.images == 12
    assert trained.card.backbone == parse_backbone("projection:16").digest.hex()
    assert f"digest {trained.digest.hex()}" in capsys.readouterr().out

    np.savez(tmp_path / "c.npz", images=images[:, :4], labels=np.zeros(6, dtype=np.int64))
    with pytest.raises(DataError, match="of several sizes"):
        train.public_images([pattern])
    np.savez(tmp_path / "c.npz", features=np.ones((6, 3)), labels=np.zeros(6, dtype=np.int64))
    with pytest.raises(DataError, match="c holds features"):
        train.public_images([str(tmp_path / "c.npz")])


# Real data


@pytest.mark.slow
def test_hand_signs_of_one_person(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = os.environ.get("SECURE_AFL_DATA")
    if not folder:
        pytest.skip("SECURE_AFL_DATA is not set to the folder of real data")
    signs = Path(folder) / "sign_digits" / "train"
    checkpoint = Path(folder) / "backbones" / "mobilenetv1_100.safetensors"
    mobilenet = parse_backbone("timm:mobilenetv1_100,pad_type=same", checkpoint, 64)
    attacked = [data for name in ("site_00", "site_01") for data in load_clients(str(signs / name))]
    few = [data.take(np.arange(0, len(data), 10)) for data in attacked]
    rows = [ClientData(data.name, mobilenet.extract(data), data.labels) for data in few]
    federation = Federation(AFL(), Plain(), backbone=mobilenet.digest)
    result = federation.run(rows, classes=few[0].classes, record=True)
    view = Record(AFL(), Plain(), result).view(["server"])
    true = Truth(
        clients={data.name: data for data in rows},
        images={data.name: load_stack(data, 32) for data in few},
    )

    public = load_clients(str(signs / "site_08"))[0]
    learned = train_decoder(mobilenet, public, Recipe(side=16, steps=120, batch=16, copies=0))
    knows = Known(extra={"backbone": mobilenet, "decoder": learned})
    decode = FeatureDecoder()
    found = by_name(decode.judge(decode.claim(view, knows, RNG), true))
    assert found["retrieval@5"].value > 5 / 22  # what guessing finds without the labels
    optimise = FeatureInversion(Settings(steps=80), most=1)
    reached = by_name(optimise.judge(optimise.claim(view, knows, RNG), true))
    assert reached["cosine of the image's feature to the recovered one"].value > 0.8
