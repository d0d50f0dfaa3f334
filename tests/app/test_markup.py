"""Nothing put into markup can leave its place."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from vestige.app.report.markup import Markup, element, join, text, visible


class _Seen(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@given(st.text(st.characters(), max_size=60))
def test_any_string_stays_text_and_attribute(value: str) -> None:
    page = element("p", value, title=value)
    page.encode("utf-8")  # lone surrogates of undecodable file names must not survive
    seen = _Seen(page)
    assert seen.tags == [("p", {"title": visible(value)})]
    assert seen.words == visible(value)


@given(st.text(st.characters(), max_size=60))
def test_visible_text_is_printable_and_stable(value: str) -> None:
    shown = visible(value)
    assert all(c.isprintable() or c == "\u200d" for c in shown)
    assert visible(shown) == shown


def test_direction_and_control_characters_are_shown() -> None:
    assert visible("photo\u202egpj.exe") == "photo\\u202egpj.exe"
    assert visible("\x1b[31m\x07\r\n\t\xad\udcff\U000e0001") == "\\x1b[31m\\x07   \\xad\\udcff\\U000e0001"
    assert visible("Zoë 東京 👩\u200d🚀") == "Zoë 東京 👩\u200d🚀"


def test_attributes_and_children() -> None:
    made = element(
        "label", "a & b", Markup("<b>x</b>"), None, for_="i", data_map=3, hidden=True, class_=None, lang=False
    )
    assert made == '<label for="i" data-map="3" hidden>a &amp; b<b>x</b></label>'
    assert element("img", alt="") == '<img alt="">'
    assert join("<", text(Markup("<i>")), None) == "&lt;<i>"
