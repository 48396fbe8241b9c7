"""The page: well-formed, without anything that runs or comes from elsewhere, whatever documents hold."""

import base64
import hashlib
import random
import re
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from reconciliation_reports import STARTED, difference, report

from cdc_shared.delta.key_hash import hash_keys
from cdc_shared.models.collection import Collection
from cdc_shared.models.reconciliation import DifferenceKind, Mode
from reconciliation.reconciler.data_comparator import RangeDigest
from reconciliation.reconciler.difference import How
from reconciliation.reconciler.result import PhaseTime
from reconciliation.reporters.report_html import SHOWN_OF_A_KIND, html_page
from reconciliation.reporters.visible_text import shortened

pytestmark = pytest.mark.unit

VOID = {"meta", "col", "rect", "br", "link", "img", "input"}
ALLOWED = frozenset(
    re.findall(
        r"\w+",
        """html head meta title style body main header p h1 div span ul li dl dt dd section h2 table caption tbody thead
        tr th td svg rect details summary code colgroup col footer""",
    )
)
ALLOWED_ATTRIBUTES = frozenset(
    re.findall(
        r"\S+",
        """lang charset http-equiv content name class hidden scope viewbox preserveaspectratio aria-hidden aria-label
        role x y width height rx open""",
    )
)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>1</script>",
    "{{ 7*7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "\u202egnp.exe",
    "\x00\x07\x1b[31m",
    "]]><!--",
    "'; DROP TABLE x; --",
    "\ud800",
]


class Page(HTMLParser):
    """Reads a page, and refuses what must not be in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.titles = self.details = self.marked = 0
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attributes) -> None:
        if tag == "title" and "svg" in self.open:
            self.titles += 1
            self.open.append(tag)
            return
        assert tag in ALLOWED, tag
        assert {name for name, _ in attributes} <= ALLOWED_ATTRIBUTES, (tag, attributes)
        self.details += tag == "details"
        self.marked += ("class", "differs") in attributes
        if tag not in VOID or (tag == "rect" and not self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes) -> None:
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_nothing_in_documents_becomes_markup(rng: random.Random) -> None:
    found = []
    for kind in DifferenceKind:
        for hostile in HOSTILE:
            name = rng.choice(HOSTILE)
            value = {hostile: name, "deep": [{hostile: hostile}]}
            found.append(
                difference(
                    kind,
                    hostile,
                    [(f"/{name}", rng.choice(list(How)))],
                    value,
                    {"other": hostile},
                    explanation=hostile,
                )
            )
    text = html_page(
        report(
            found,
            notes=HOSTILE,
            collection=Collection(HOSTILE[0], HOSTILE[1]),
            timeline=[PhaseTime(HOSTILE[0], STARTED, 1, HOSTILE[1])],
        )
    )
    page = Page(text)
    assert "<script>alert(1)</script>" in page.text, "it is shown, as text"
    assert "\\u202egnp.exe" in page.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\ud800-\udfff]", text)
    assert "{{ 7*7 }}{% raw %}" in page.text, "nothing in it is a template"


def test_the_policy_in_the_page_allows_its_own_style_and_nothing_else() -> None:
    text = html_page(report())
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'" in text
    assert not re.search(r"https?://|//[a-z]|url\(|@import|style=|\son\w+=", text.replace("http-equiv", ""))


def test_a_difference_is_named_by_its_key_and_fields_before_it_is_opened() -> None:
    fields = [("/total", How.VALUE), ("/note", How.ONLY_IN_SOURCE)]
    found = [difference(key="42", fields=fields, document={"total": 1, "note": "x"}, row={"total": 2})]
    found.append(difference(DifferenceKind.EXTRA, key="", row={"total": 3}))
    page = html_page(report(found))
    assert '<summary><code>42</code> <span class="soft small">/total, /note</span></summary>' in page
    assert "<summary><code>(no key)</code></summary>" in page
    assert "only in MongoDB" in Page(page).text
    assert "only in source" not in Page(page).text, "one word for one thing"


def test_nothing_is_cut_to_save_less_than_the_remark_takes() -> None:
    assert shortened("x" * 121, 120) == "x" * 121
    assert shortened("x" * 1_144, 120) == "x" * 120 + "… (1,024 more characters)"


def test_an_equal_run_says_through_when() -> None:
    page = Page(html_page(report(verified_through=STARTED, settled=3)))
    assert "The table is right as of 2026-01-31 02:00:00 UTC." in page.text
    assert page.details == 0


@pytest.mark.parametrize("mode", list(Mode))
def test_no_mode_says_more_than_it_has_looked_at(mode: Mode) -> None:
    page = Page(html_page(report(mode=mode, verified_through=STARTED if mode is Mode.FULL else None)))
    assert ("The table is right" in page.text) is (mode is Mode.FULL)
    assert ("Differences by kind" in page.text) is (mode is not Mode.COUNTS)


def test_what_was_not_looked_into_is_said_with_the_verdict() -> None:
    made = report([difference(DifferenceKind.MISSING)], uninspected=1_234)
    assert made.headline == "1 key is wrong: 1 missing; 1,234 more were not looked into."


def test_differences_are_shown_side_by_side_and_the_rest_is_counted() -> None:
    found = [
        difference(DifferenceKind.DIFFERENT, str(number), [("/a", How.VALUE)], {"a": 1, "b": 2}, {"a": 3, "b": 2})
        for number in range(SHOWN_OF_A_KIND + 7)
    ]
    page = Page(html_page(report([*found, difference(DifferenceKind.FILTERED, "f")])))
    assert page.details == SHOWN_OF_A_KIND + 1
    assert page.marked == SHOWN_OF_A_KIND
    assert f"The first {SHOWN_OF_A_KIND}; the others are in the CSV and JSON reports." in page.text


def test_a_cell_of_the_map_knows_its_wrong_keys() -> None:
    key = "key 17"
    of = int(hash_keys([key])[0, 0]) >> 56
    ranges = [RangeDigest(each, 10, 10, 1, 2, int(each in (of, (of + 1) % 256))) for each in reversed(range(256))]
    text = html_page(report([difference(DifferenceKind.MISSING, key)], ranges))
    page = Page(text)
    assert page.titles == 256
    assert f"range {of:02x}: 10 documents, 10 rows, 1 wrong" in page.text
    assert text.count("cell wrong-4") == 1
    assert text.count("cell settled") == 1
    assert "254 were equal at once, 1 hold wrong keys" in page.text


def test_rows_without_a_key_are_in_the_first_range() -> None:
    made = report([difference(DifferenceKind.EXTRA, "")])
    assert made.wrong_by_range == {0: 1}


def test_phases_lie_on_one_axis() -> None:
    phases = [
        PhaseTime("scanning_source", STARTED, 50),
        PhaseTime("settling", STARTED + timedelta(seconds=50), 25, "generation 1"),
    ]
    text = html_page(report(timeline=phases))
    assert '<rect class="phase" x="0.0" y="0" width="50.0" height="12"/>' in text
    assert '<rect class="phase" x="50.0" y="0" width="25.0" height="12"/>' in text
    assert "generation 1" in Page(text).text


def test_the_page_stays_small_whatever_was_found() -> None:
    large = {f"field{number}": "x" * 100_000 for number in range(100)}
    found = [
        difference(kind, str(number), [(f"/field{each}", How.VALUE) for each in range(100)], large, large)
        for kind in (DifferenceKind.DIFFERENT, DifferenceKind.MISSING)
        for number in range(2)
    ]
    assert len(html_page(report(found))) < 400_000
