import re
import tomllib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

import attacks.report
from attacks.attack import Measure
from attacks.report.charts import Axis, Series, lay_out
from attacks.report.matrix import compact, panels
from attacks.report.page import render
from attacks.suite.cells import Gallery, gallery
from attacks.suite.config import AttackConfig
from attacks.suite.results import Results
from attacks.suite.run import run
from secure_afl.runs.config import RunConfig
from tests.kit.tiny import TINY, Stumbling

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that elements nest, and keeps ids, links, sources and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.classes: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.text = ""
        self.feed(html)
        self.close()
        self.text = " ".join(self.text.split())
        assert self.open == [], "everything that was opened is closed"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attributes:
            assert value is not None
            match name:
                case "id":
                    self.ids[value] += 1
                case "href":
                    self.links.append(value)
                case "src":
                    self.sources.append(value)
                case "class":
                    self.classes.update(value.split())
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("suite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECURE_AFL_CACHE", str(folder / "features.sqlite"))
        config = AttackConfig(
            run=RunConfig(backbone="identity", partition="iid:4"),
            protocols=("plain", "additive"),
            rows=(40, 160),
            sweep=(20, 40, 80),
        )
        return run(config, TINY | {"stumbling": Stumbling}, folder, None, "secure-afl attack <&>")


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return Page(render(results))


def test_the_page_is_whole_and_asks_for_nothing_from_anywhere(results: Results, page: Page) -> None:
    html = render(results)
    assert html.startswith("<!doctype html>")
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(link.startswith("#") for link in page.links)
    assert not page.tags.keys() & {"script", "link", "iframe", "object"}
    assert not re.search(r"https?:|@import|url\(", html)
    assert max(page.ids.values()) == 1, "an anchor leads to one place"
    assert {link[1:] for link in page.links} <= page.ids.keys(), "no link leads nowhere"
    assert "secure-afl attack <&>" in page.text, "escaped, and read back"


def test_the_matrix_says_what_the_cells_say(results: Results, page: Page) -> None:
    in_matrix = [cell for cell in results.cells if cell.rows in results.matrix_rows]
    # The client of fedhip has nothing that these attacks want, so that its panels have no column.
    afl = [cell for cell in in_matrix if cell.method == "afl"]
    failed = sum(cell.error is not None for cell in afl)
    idle = sum(cell.error is None and not cell.claimed for cell in afl)
    assert page.classes["failed"] == failed + 1, "and one in the legend"
    assert page.classes["none"] == idle + 3, "and three in the legend"
    assert page.text.count("ZeroDivisionError: stumbled") == sum(
        cell.error is not None for cell in results.cells
    )
    assert "afl, exact sums, 40 rows in the sum" in page.text
    assert f"All {results.planned:,} cells" in page.text
    for panel in panels(results):
        header, lines = compact(results, panel)
        assert header[:2] == ["protocol", "adversary"]
        assert {len(line) for line in lines} == {len(header)}
        if panel.method == "afl" and panel.rows == 40:
            shown = {(line[0], line[1]): dict(zip(header, line, strict=True)) for line in lines}
            assert shown["plain", "server"]["leverage"] == "1*"
            assert shown["plain", "server"]["stumbling"] == "!"
            assert shown["additive", "outsider"]["leverage"] == "·"


def test_curves_pictures_and_assumptions_are_there(results: Results, page: Page) -> None:
    assert page.classes["chart"] >= 5
    assert "Membership: the strongest attack by AUC" in page.text
    assert "candidate rows" in page.text
    assert "The last client: its own messages and rows" in page.text
    assert page.tags["img"] >= 6
    assert "correlation" in page.text
    assert "no interval" in page.text, "of a bound that is nowhere"


def test_a_report_of_nothing_yet_is_a_page_too(results: Results) -> None:
    empty = msgspec.structs.replace(results, cells=())
    text = Page(render(empty)).text
    assert f"0 of {results.planned} cells are here" in text


def test_colours_keep_their_contrast_and_lightness_goes_one_way(results: Results) -> None:
    rules = re.findall(r"\.s(\d+) \{ background: #(\w{6}); color: #(\w{6}); \}", render(results))
    assert [int(level) for level, *_ in rules] == [*range(11), *range(11)]

    def light(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    backgrounds = [light(background) for _, background, _ in rules]
    assert backgrounds[:11] == sorted(backgrounds[:11], reverse=True)
    assert backgrounds[11:] == sorted(backgrounds[11:])
    for _, background, ink in rules:
        lower, upper = sorted((light(background), light(ink)))
        assert (upper + 0.05) / (lower + 0.05) >= 4.5, "WCAG AA"


def test_a_chart_puts_points_where_they_belong() -> None:
    x, y = Axis("rows", 10, 1000, log=True), Axis("AUC", 0.5, 1.0)
    assert [x.at(value) for value in (10, 100, 1000)] == pytest.approx([0, 0.5, 1])
    assert y.at(0.75) == pytest.approx(0.5)
    assert (y.at(-3), y.at(3)) == (0, 1)
    assert x.ticks() == [10, 20, 50, 100, 200, 500, 1000]
    assert y.ticks() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    chart = lay_out("name", x, y, [Series("line", [(10, 0.5), (1000, 1.0)], [(0.5, 0.6)] * 2)], 0.4)
    (line,) = chart.lines
    (left, bottom), (right, top) = line.points
    assert line.path == f"M{left:.1f} {bottom:.1f}L{right:.1f} {top:.1f}"
    assert (left, right) == (chart.frame.left, chart.frame.right)
    assert (top, bottom) == (chart.frame.top, chart.frame.bottom)
    assert line.bars.count("V") == 2
    assert chart.chance is None, "guessing lies off the axis"


def test_pictures_are_kept_as_png() -> None:
    import base64
    import io

    from PIL import Image

    from attacks.attack import Picture

    true = np.array([[[0.0], [1.0]], [[0.5], [0.2]]])
    kept = gallery(Picture("x", true, np.full((2, 2, 3), np.nan)))
    assert isinstance(kept, Gallery)
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(kept.true))))
    np.testing.assert_array_equal(grey, [[0, 255], [128, 51]])
    assert Image.open(io.BytesIO(base64.b64decode(kept.rebuilt))).mode == "RGB"


def test_figures_do_not_round_to_what_is_complete(results: Results) -> None:
    cell = next(c for c in results.cells if c.claimed and c.attack == "leverage")
    nearly = Measure("AUC", 0.9996, 0.99, 1.0, 0.5, 1.0, 10)
    bent = msgspec.structs.replace(cell, measures=(nearly,), rows=40)
    text = Page(render(msgspec.structs.replace(results, cells=(bent,)))).text
    assert "1.000" in text


def test_privacy_has_panels_of_its_own_and_its_bound_beside_the_curve(results: Results) -> None:
    private = [
        msgspec.structs.replace(cell, epsilon=8.0, mu=1.67, key="p" + cell.key)
        for cell in results.cells
        if cell.method == "afl"
    ]
    config = msgspec.structs.replace(results.config, epsilons=(8.0,))
    both = msgspec.structs.replace(results, config=config, cells=(*results.cells, *private))
    page = Page(render(both))
    assert "afl, ε = 8, 40 rows in the sum" in page.text
    assert "bound at ε = 8" in page.text
    assert "additive, collector, ε = 8" in page.text
    assert "bound at" not in Page(render(results)).text


def test_a_tied_attack_is_drawn_as_the_coin_that_it_is(results: Results) -> None:
    tied = [
        msgspec.structs.replace(cell, roc=((0.0, 0.0), (1.0, 1.0)) if cell.roc else ())
        for cell in results.cells
    ]
    html = render(msgspec.structs.replace(results, cells=tuple(tied)))
    section = html[html.index('id="roc"') : html.index('id="pictures"')]
    lines = re.findall(r'class="line" d="(M[^"]{50,})"', section)
    assert len(lines) >= 2
    assert len(set(lines)) == 1, "the attack's line is that of guessing"


NASTY = """<b>&"it's"</b>"""


def test_names_from_data_are_escaped_wherever_they_stand(results: Results) -> None:
    names = {
        **{card.name: card.name + NASTY for card in results.attacks},
        **{card.name: card.name + NASTY for card in results.adversaries},
    }
    cells = [
        msgspec.structs.replace(
            cell,
            attack=names[cell.attack],
            coalition=tuple(f"{party}{NASTY}" for party in cell.coalition),
            error=None if cell.error is None else cell.error + NASTY,
            measures=tuple(
                msgspec.structs.replace(m, metric=m.metric if m.metric == "AUC" else NASTY)
                for m in cell.measures
            ),
            images=tuple(msgspec.structs.replace(i, caption=NASTY) for i in cell.images),
        )
        for cell in results.cells
    ]
    replaced = msgspec.structs.replace(
        results,
        cells=tuple(cells),
        attacks=tuple(
            msgspec.structs.replace(c, name=names[c.name], summary=f"{NASTY} `{NASTY}`")
            for c in results.attacks
        ),
        adversaries=tuple(
            msgspec.structs.replace(c, title=c.title + NASTY) for c in results.adversaries
        ),
        data=msgspec.structs.replace(results.data, source=NASTY),
        protocols=dict.fromkeys(results.protocols, NASTY),
    )
    html = render(replaced)
    assert NASTY not in html
    assert "&amp;lt;" not in html, "nothing is escaped twice"
    before, after = Page(render(results)), Page(html)
    expected = before.tags.copy()
    # The first paragraph of every summary is all that is left of it, and has one piece of code.
    for tag in ("p", "code"):
        del expected[tag], after.tags[tag]
    assert after.tags == expected, "what is in a name opens no element"
    assert {link[1:] for link in after.links} <= after.ids.keys()
    assert f"attack-leverage{NASTY}" in after.ids
    for words in (f"client_03{NASTY}", f"ZeroDivisionError: stumbled{NASTY}", f"protects {NASTY}"):
        assert words in after.text


def test_backticks_of_a_summary_are_code(results: Results) -> None:
    card = msgspec.structs.replace(results.attacks[0], summary="Reads `a < b`\n off.\n\nAt once.")
    html = render(msgspec.structs.replace(results, attacks=(card, *results.attacks[1:])))
    assert "<p>Reads <code>a &lt; b</code> off.</p><p>At once.</p>" in html


def test_style_and_templates_are_packaged() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    tools = tomllib.loads(text)["tool"]["setuptools"]
    assert "attacks*" in tools["packages"]["find"]["include"]
    room = Path(attacks.report.__path__[0])
    patterns = tools["package-data"]["attacks.report"]
    packaged = {path for pattern in patterns for path in room.glob(pattern)}
    assert packaged == {p for p in room.rglob("*") if p.is_file() and ".py" not in p.suffix}
