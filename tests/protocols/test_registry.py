"""What a registry holds, and which classes it refuses; `tests/toys` adds real ones."""

import sys
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

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


MODULE = """
from {home} import Shape
from {room} import SHAPES

@SHAPES.register
class Guest(Shape):
    name = {name}
    corners = 3
"""


class Room(NamedTuple):
    """A registry, and the folder of the package that it reads."""

    shapes: Registry[Shape]
    folder: Path

    def read(self) -> set[str]:
        """Name the modules that were imported."""
        package = f"{self.folder.name}."
        return {name.removeprefix(package) for name in sys.modules if name.startswith(package)}

    def add(self, module: str, name: str) -> None:
        """Add a module whose class has a name, given as it is written."""
        text = MODULE.format(home=__name__, room=self.folder.name, name=name)
        (self.folder / f"{module}.py").write_text(text, encoding="utf-8")


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Room:
    """A package of two modules: b defines 'a', and a defines 'b'."""
    package = f"room_of_shapes_{tmp_path.name}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from {__name__} import Registry, Shape\n"
        f"SHAPES = Registry('shape', Shape, ('{package}',), 'guests.none')\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Room(__import__(package).SHAPES, folder)
    made.add("b", '"a"')
    made.add("a", '"b"')
    return made


def test_one_name_reads_the_modules_that_write_it(room: Room) -> None:
    assert room.read() == set()
    assert room.shapes["a"].name == "a"
    assert room.read() == {"b"}
    assert "b" in room.shapes
    assert room.read() == {"a", "b"}


def test_the_order_is_that_of_the_modules_whichever_was_read_first(room: Room) -> None:
    assert room.shapes["a"].name == "a"
    assert list(room.shapes) == ["b", "a"]


def test_a_name_that_nobody_writes_out_reads_all(room: Room) -> None:
    room.add("c", "'comp' + 'uted'")
    assert room.shapes["computed"].name == "computed"
    assert room.read() == {"a", "b", "c"}
    assert "\udcff" not in room.shapes


def test_two_modules_that_write_one_name_are_told_apart(room: Room) -> None:
    room.add("c", '"a"')
    with pytest.raises(BrokenExtension, match="two classes are shape 'a'"):
        room.shapes["a"]


def test_unknown_names_are_refused_with_the_known_ones(shapes: Registry[Shape]) -> None:
    with pytest.raises(NotRegistered, match=r"shape 'circle'\. allowed: square"):
        shapes["circle"]
    assert "circle" not in shapes
    shapes.forget("square")
    assert not list(shapes)
