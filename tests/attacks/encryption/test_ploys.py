"""Each attack has the victim's vector where sums are not verified, and nothing where they are."""

from collections.abc import Callable

import numpy as np
import pytest

from attacks.encryption.naive_key_holder import NaiveKeyHolder
from attacks.encryption.ploys import (
    Ploy,
    chosen_ciphertext,
    key_recovery,
    malicious_addend,
    relabelled_upload,
    rushing_client,
)
from attacks.views.lies import stage
from protocols import Block, Layout, Party, Session
from protocols.errors import InexactDecoding, UnverifiedSum
from protocols.schemes.encrypted.messages import KEY_HOLDER
from protocols.schemes.encrypted.protocol import Ckks
from tests.kit.worlds import World, make_world

LENGTH = 2048
LAYOUT = Layout((Block("values", LENGTH, -(2**24), 2**24),))
VICTIM, RUSHING = "client1", "client3"

Make = Callable[[Session], Ploy]


def relabelled(session: Session) -> Ploy:
    return relabelled_upload(session, VICTIM)


def chosen(session: Session) -> Ploy:
    return chosen_ciphertext(session, VICTIM)


def addend(session: Session) -> Ploy:
    return malicious_addend(session, RUSHING, VICTIM)


def rushing(session: Session) -> Ploy:
    return rushing_client(session, RUSHING, VICTIM)


def new_world(verify: bool, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    vectors = [rng.integers(-1000, 1001, LENGTH) for _ in range(4)]
    return make_world(Ckks(verify), vectors, LAYOUT, min_cohort=3, corrupt=1)


def naive(world: World) -> tuple[list[Party], NaiveKeyHolder]:
    assert isinstance(world.protocol, Ckks)
    holder = NaiveKeyHolder(world.session, world.enrolments[KEY_HOLDER])
    return [holder if p.name == KEY_HOLDER else p for p in world.parties()], holder


@pytest.mark.parametrize("make", [relabelled, chosen, addend, rushing])
@pytest.mark.parametrize("seed", range(2))
def test_lies_have_the_victims_vector_of_a_naive_key_holder(make: Make, seed: int) -> None:
    world = new_world(False, seed)
    attack = make(world.session)
    ended = stage(world.session, naive(world)[0], attack.coalition, attack.lies)
    assert ended.error is None
    found = attack.read(ended.view)
    assert found is not None
    assert np.array_equal(found, world.vectors[VICTIM])


@pytest.mark.parametrize("make", [relabelled, rushing])
def test_lies_that_look_like_sums_pass_unverified(make: Make) -> None:
    world = new_world(False)
    attack = make(world.session)
    ended = stage(world.session, world.parties(), attack.coalition, attack.lies)
    found = attack.read(ended.view)
    assert found is not None
    assert np.array_equal(found, world.vectors[VICTIM])


@pytest.mark.parametrize("make", [chosen, addend])
def test_lies_that_are_not_integers_are_refused_unverified(make: Make) -> None:
    world = new_world(False)
    attack = make(world.session)
    ended = stage(world.session, world.parties(), attack.coalition, attack.lies)
    assert isinstance(ended.error, InexactDecoding)
    assert attack.read(ended.view) is None


@pytest.mark.parametrize("make", [relabelled, chosen, addend, rushing])
def test_lies_end_a_verified_session(make: Make) -> None:
    world = new_world(True)
    attack = make(world.session)
    ended = stage(world.session, world.parties(), attack.coalition, attack.lies)
    assert isinstance(ended.error, UnverifiedSum)
    assert attack.read(ended.view) is None


def test_published_approximations_give_the_key_away() -> None:
    world = new_world(False)
    parties, holder = naive(world)
    attack = key_recovery(world.session, VICTIM, lambda: holder.published)
    ended = stage(world.session, parties, attack.coalition)
    found = attack.read(ended.view)
    assert found is not None
    assert np.array_equal(found, world.vectors[VICTIM])


@pytest.mark.parametrize("verify", [False, True])
def test_released_integers_do_not(verify: bool) -> None:
    world = new_world(verify)
    attack = key_recovery(world.session, VICTIM)
    ended = stage(world.session, world.parties(), attack.coalition)
    assert ended.error is None
    found = attack.read(ended.view)
    assert found is not None
    # The wrong key decrypts to noise: not one entry in a hundred is right by chance.
    assert np.mean(found == world.vectors[VICTIM]) < 0.01


def test_a_verified_sum_is_free_of_noise_even_before_rounding() -> None:
    """The key holder subtracts it with the clients' seeds; without noise there is no equation."""
    world = new_world(True)
    parties, holder = naive(world)
    attack = key_recovery(world.session, VICTIM, lambda: holder.published)
    ended = stage(world.session, parties, attack.coalition)
    assert ended.view.released is not None
    assert np.array_equal(ended.view.released.total, world.truth(world.vectors))
    found = attack.read(ended.view)
    assert found is not None
    assert np.mean(found == world.vectors[VICTIM]) < 0.01


def test_honest_sessions_are_what_the_lies_replace() -> None:
    """The same stage without lies releases the sum in both modes."""
    for verify in (False, True):
        world = new_world(verify)
        ended = stage(world.session, world.parties(), ())
        assert ended.view.released is not None
        assert np.array_equal(ended.view.released.total, world.truth(world.vectors))


def test_a_view_holds_the_coalitions_records_only() -> None:
    world = new_world(True)
    ended = stage(world.session, world.parties(), ("server", VICTIM))
    assert set(ended.view.records) == {"server", VICTIM}
    assert "client0" not in repr(ended.view)
    with pytest.raises(KeyError):
        ended.view.enrolment("client0")
