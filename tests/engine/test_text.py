"""Text as it grows: characters stay whole, and a stop string ends it at the same place however it was cut."""

from hypothesis import given
from hypothesis import strategies as st

from spillway.engine.text import StopScanner, TextWindow
from tests.engine.played import FIRST_BYTE_ID, BytesTokenizer

TOKENIZER = BytesTokenizer()
SHORT = st.text(alphabet="ab\n", min_size=1, max_size=4)


def cut(items: list[int], sizes: list[int]) -> list[list[int]]:
    pieces: list[list[int]] = []
    at = 0
    for size in sizes:
        pieces.append(items[at : at + size])
        at += size
    return [*pieces, items[at:]]


def grow(ids: list[int], sizes: list[int]) -> list[str]:
    window = TextWindow()
    told: list[str] = []
    for piece in cut(ids, sizes):
        window.extend(piece)
        context, whole = TOKENIZER.decode(window.rows())
        told.append(window.accept(context, whole, final=False))
    context, whole = TOKENIZER.decode(window.rows())
    told.append(window.accept(context, whole, final=True))
    return told


@given(st.text(max_size=40), st.lists(st.integers(0, 7), max_size=40))
def test_pieces_of_text_join_to_the_text(text: str, sizes: list[int]) -> None:
    ids = [byte + FIRST_BYTE_ID for byte in text.encode(errors="surrogatepass").replace(b"\xed", b"")]
    whole = TOKENIZER.decode([ids])[0]
    assert "".join(grow(ids, sizes)) == whole


@given(st.binary(max_size=25), st.lists(st.integers(0, 5), max_size=30))
def test_bytes_that_are_no_text_come_out_as_replacement_characters(data: bytes, sizes: list[int]) -> None:
    ids = [byte + FIRST_BYTE_ID for byte in data]
    assert "".join(grow(ids, sizes)) == data.decode(errors="replace")


def test_half_a_character_is_not_told() -> None:
    ids = [byte + FIRST_BYTE_ID for byte in "a😀b".encode()]
    assert grow(ids, [1, 1, 1, 1, 1]) == ["a", "", "", "", "😀", "b", ""]


def test_endless_garbage_does_not_pile_up() -> None:
    window = TextWindow()
    longest = 0
    for _ in range(500):
        window.extend([0x80 + FIRST_BYTE_ID])
        rows = window.rows()
        longest = max(longest, len(rows[1]))
        window.accept(*TOKENIZER.decode(rows), final=False)
    assert longest < 100


def first_stop(text: str, stops: list[str]) -> str:
    """By definition: the text up to the start of the stop that is complete first, the longest at that end."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text.endswith(stop, 0, end)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(st.text(alphabet="ab\n", max_size=30), st.lists(SHORT, min_size=1, max_size=3), st.data())
def test_a_stop_ends_the_text_wherever_it_was_cut(text: str, stops: list[str], data: st.DataObject) -> None:
    scanner = StopScanner(stops)
    told = ""
    stopped = False
    rest = text
    while rest and not stopped:
        size = data.draw(st.integers(1, len(rest)))
        piece, stopped = scanner.feed(rest[:size])
        told += piece
        rest = rest[size:]
    if not stopped:
        told += scanner.rest()
    assert told == first_stop(text, stops)


def test_what_may_begin_a_stop_is_held_back() -> None:
    scanner = StopScanner(["</item>"])
    assert scanner.feed("a </it") == ("a ", False)
    assert scanner.feed("s") == ("</its", False)
    assert scanner.feed(" </item> b") == (" ", True)
