"""Nothing that a user writes becomes a special token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.core.errors import BadRequestError, ConfigError
from spillway.engine.prompt import Message, Prompts
from tests.engine.played import ASSISTANT, END, SPECIAL, TEMPLATE, USER, BytesTokenizer

TOKENIZER = BytesTokenizer()
WRITTEN = st.lists(
    st.sampled_from([*SPECIAL, "<|", "end|>", "<", "|>", "hi ", "ü", "\ue0f00\ue0f1", "{{ 1 }}"]), max_size=12
).map("".join)


def prompts() -> Prompts:
    return Prompts(TOKENIZER, tuple(SPECIAL), TEMPLATE)


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), WRITTEN), min_size=1, max_size=4))
def test_contents_come_through_as_they_were_written(messages: list[Message]) -> None:
    ids = prompts().chat(messages)
    assert ids.count(USER) == len(messages)
    assert ids.count(END) == len(messages)
    assert ids[-1] == ASSISTANT
    written = "".join(f"{message.role}:{message.content}" for message in messages)
    assert TOKENIZER.decode([ids])[0] == written


@given(WRITTEN)
def test_a_text_has_no_special_ids(text: str) -> None:
    (ids,) = prompts().texts([text])
    assert not set(SPECIAL.values()) & set(ids)
    assert TOKENIZER.decode([ids])[0] == text


def test_many_and_long_texts_keep_their_order() -> None:
    texts = [f"{number}:" + "x" * (number % 5 * 300) for number in range(100)]
    assert TOKENIZER.decode(prompts().texts(texts)) == texts


def test_a_template_may_refuse() -> None:
    strict = Prompts(
        TOKENIZER,
        tuple(SPECIAL),
        "{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}{{ messages[0]['content'] }}",
    )
    assert strict.chat([Message("user", "a")]) == TOKENIZER.encode(["a"])[0]
    with pytest.raises(BadRequestError, match="chat template"):
        strict.chat([Message("user", "a"), Message("user", "b")])


def test_a_template_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError):
        Prompts(TOKENIZER, (), "{% for %}")


def test_a_template_cannot_reach_out() -> None:
    escaping = Prompts(TOKENIZER, (), "{{ messages.__class__.__mro__ }}")
    with pytest.raises(BadRequestError):
        escaping.chat([Message("user", "a")])
