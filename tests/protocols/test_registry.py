"""What a registry holds, and which classes it refuses; `tests/toys` adds real ones."""

from typing import Any, ClassVar

import msgspec
import pytest

from protocols.errors import BrokenExtension, NotRegistered
from protocols.registry import Registry


class Shape:
    name: ClassVar[str]
    corners: ClassVar[int]


class Square(Shape):
    name = "square"
    corners = 4


@pytest.fixture
def shapes() -> Registry[Shape]:
    found: Registry[Shape] = Registry("shape", Shape, (), "guests.none")
    found.register(Square)
    return found


def holds_squares_only(shapes: Registry[Shape]) -> bool:
    return dict(shapes.items()) == {"square": Square}


NO_SHAPE = "Guest is no shape: it needs the base class Shape and a name"


@pytest.mark.parametrize("named", [{}, {"name": ""}, {"name": 4}])
def test_a_class_without_a_name_is_refused(shapes: Registry[Shape], named: dict[str, Any]) -> None:
    with pytest.raises(BrokenExtension, match=NO_SHAPE):
        shapes.register(type("Guest", (Shape,), {"corners": 3} | named))
    assert holds_squares_only(shapes)


def test_a_class_of_another_kind_is_refused(shapes: Registry[Shape]) -> None:
    with pytest.raises(BrokenExtension, match=NO_SHAPE):
        shapes.register(type("Guest", (), {"corners": 3, "name": "guest"}))
    assert holds_squares_only(shapes)


def test_a_class_that_lacks_what_its_bases_announce_is_refused(shapes: Registry[Shape]) -> None:
    class Sized(Shape, msgspec.Struct):
        name = "sized"
        size: int

    with pytest.raises(BrokenExtension, match="Sized lacks a default of size, corners"):
        shapes.register(Sized)
    assert holds_squares_only(shapes)


def test_a_second_class_of_one_name_is_refused(shapes: Registry[Shape]) -> None:
    class Other(Shape):
        name = "square"
        corners = 4

    with pytest.raises(
        BrokenExtension, match=r"two classes are shape 'square': .*Square and .*Other"
    ):
        shapes.register(Other)
    # The same one may come twice: by its module and by an entry point.
    assert shapes.register(Square) is Square
    assert holds_squares_only(shapes)


def test_unknown_names_are_refused_with_the_known_ones(shapes: Registry[Shape]) -> None:
    with pytest.raises(NotRegistered, match=r"shape 'circle'\. allowed: square"):
        shapes["circle"]
    assert "circle" not in shapes
    shapes.forget("square")
    assert not list(shapes)
