"""Where contents and places stand in the texts of all kinds of chat templates."""

import pytest

from harvest.corpus.document import Turn
from harvest.text.places import PLACES
from harvest.text.template import ChatTemplate, LeftOut, chat_templates
from pipeline.errors import ModelError
from pipeline.specs import ModelSpec

from .tokenizers import CHATML, CHATML_TOKENS, GEMMA, LLAMA3, THINKING, train, with_template

ASKED = (Turn("user", "hi"), Turn("assistant", "yes"))


@pytest.fixture(scope="module")
def tokenizer():
    return with_template(train("metaspace", ["yes hi"] * 3, 300), CHATML, CHATML_TOKENS)


@pytest.fixture
def bare(tokenizer):
    """The tokenizer of a model without a chat template."""
    own, tokenizer.chat_template = tokenizer.chat_template, None
    yield tokenizer
    tokenizer.chat_template = own


def read_until(chat, turn: int) -> dict[str, str]:
    """The text up to each place of a turn."""
    places = zip(PLACES, chat.places[turn].tolist(), strict=True)
    return {name: chat.text[:end] for name, end in places if end >= 0}


def contents(chat) -> list[str]:
    return [chat.text[begin:end] for begin, end in zip(chat.begins, chat.ends, strict=True)]


def test_a_turn_that_the_template_adds_is_nobody_s(tokenizer):
    chat = ChatTemplate(tokenizer, "a").render(ASKED)
    added = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert read_until(chat, 0) == {
        "turn_start": added + "<|im_start|>",
        "role": added + "<|im_start|>user",
        "header_end": added + "<|im_start|>user\n",
        "turn_end": added + "<|im_start|>user\nhi<|im_end|>",
    }


def test_a_template_may_be_plain_words(tokenizer):
    template = (
        "A user talks to an assistant. "
        "{% for m in messages %}{{ m.role | upper }}: {{ m.content }}\n{% endfor %}"
    )
    chat = ChatTemplate(tokenizer, "a", template).render(ASKED)
    first = "A user talks to an assistant. USER"
    assert read_until(chat, 0) == {
        "role": first,
        "header_end": first + ": ",
        "turn_end": first + ": hi\n",
    }
    assert read_until(chat, 1)["role"] == first + ": hi\nASSISTANT"


def test_a_special_token_may_be_all_of_a_header(tokenizer):
    """As DeepSeek's <|User|>: start, role and header are one token."""
    template = (
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|im_start|>' + m.content if m.role == 'user' "
        "else '</s>' + m.content + '<|im_end|>' }}"
        "{% endfor %}"
    )
    chat = ChatTemplate(tokenizer, "a", template).render(ASKED)
    assert chat.bos == "<s>"
    assert read_until(chat, 0) == {"header_end": "<s><|im_start|>"}
    assert read_until(chat, 1) == {
        "header_end": "<s><|im_start|>hi</s>",
        "turn_end": "<s><|im_start|>hi</s>yes<|im_end|>",
    }


def test_a_bos_that_begins_turns_is_their_start(tokenizer):
    """As Llama 2's: <s>[INST] hi [/INST] yes </s><s>[INST] ..."""
    template = (
        "{% for m in messages %}{{ '<s>[INST] ' + m.content + ' [/INST]' if m.role == 'user' "
        "else ' ' + m.content + ' </s>' }}{% endfor %}"
    )
    chat = ChatTemplate(tokenizer, "a", template).render((*ASKED, *ASKED))
    assert chat.bos == ""
    assert read_until(chat, 0) == {
        "turn_start": "<s>",
        "header_end": "<s>[INST] ",
        "turn_end": "<s>[INST] hi [/INST]",
    }
    once = "<s>[INST] hi [/INST] yes </s>"
    assert read_until(chat, 1)["turn_end"] == once
    assert read_until(chat, 2)["turn_start"] == once + "<s>"


def test_a_template_may_look_into_the_contents(tokenizer):
    """The last answer's thoughts are written out: then no empty ones are put before it."""
    template = ChatTemplate(tokenizer, "a", THINKING)
    thought = (Turn("user", "hi"), Turn("assistant", "<think>\nso\n</think>\n\nyes"))
    assert contents(template.render(thought)) == [turn.content for turn in thought]
    plain = template.render(ASKED)
    assert contents(plain) == ["hi", "yes"]
    assert read_until(plain, 1)["header_end"].endswith("assistant\n<think>\n\n</think>\n\n")
    assert read_until(plain, 1)["role"].endswith("<|im_start|>assistant")


def test_a_template_may_add_to_the_end_what_depends_on_the_contents(tokenizer):
    template = (
        "{% for m in messages %}[{{ m.content }}]{% endfor %}"
        "{% if 'hi' in messages[0].content %}!{% endif %}"
    )
    chat = ChatTemplate(tokenizer, "a", template).render(ASKED)
    assert chat.text == "[hi][yes]!"
    assert read_until(chat, 1)["turn_end"] == "[hi][yes]!"


def test_a_chat_whose_words_the_template_changes_is_left_out(tokenizer):
    rewritten = LeftOut("chats that a's template rewrites")
    thought = (Turn("user", "hi"), Turn("assistant", "<think>so</think>yes"), Turn("user", "hi"))
    assert ChatTemplate(tokenizer, "a", THINKING).render(thought) == rewritten
    upper = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    assert ChatTemplate(tokenizer, "a", upper).render(ASKED) == rewritten
    twice = "{{ messages[0].content }}{% for m in messages %}[{{ m.content }}]{% endfor %}"
    assert ChatTemplate(tokenizer, "a", twice).render(ASKED) == rewritten


def test_a_chat_that_the_template_refuses_is_left_out(tokenizer):
    refused = LeftOut("chats that a's template refuses")
    template = ChatTemplate(tokenizer, "a", GEMMA)
    assert template.render((Turn("system", "x"), *ASKED)) == refused
    assert template.render((*ASKED, Turn("assistant", "x"))) == refused
    assert contents(template.render(ASKED)) == ["hi", "yes"]


def test_a_template_that_is_wrong_for_a_chat_leaves_it_out(tokenizer):
    template = "{% for m in messages %}{{ m.content + 1 }}{% endfor %}"
    found = ChatTemplate(tokenizer, "a", template).render(ASKED)
    assert found == LeftOut("chats that a's template refuses")


def test_today_is_the_same_day_in_every_run(tokenizer):
    template = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"
    assert ChatTemplate(tokenizer, "a", template).render(ASKED).text == "26 Jul 2024hiyes"


def test_white_space_at_a_template_s_beginning_is_kept(tokenizer):
    template = "  \n {% for m in messages %}[{{ m.content }}]{% endfor %}"
    chat = [{"role": turn.role, "content": turn.content} for turn in ASKED]
    wanted = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False)
    assert ChatTemplate(tokenizer, "a", template).render(ASKED).text == wanted


def spec(**keys) -> ModelSpec:
    return ModelSpec(path="x", hookpoint="layers.0", **keys)


def test_models_read_their_own_a_file_s_or_another_s_template(tokenizer, bare, tmp_path):
    file = tmp_path / "llama.jinja"
    file.write_text(LLAMA3)
    specs = {
        "a": spec(chat_template=str(file)),
        "b": spec(chat_template="a"),
    }
    found = chat_templates(specs, {"a": bare, "b": None})
    assert found["b"] is found["a"]
    assert found["a"].render(ASKED[:1]).text.startswith("<s><|start_header_id|>user")


def test_a_model_without_a_template_says_what_to_set(bare):
    with pytest.raises(ModelError, match=r"^models\.a\.chat_template: .*set models\.a\.chat_templ"):
        chat_templates({"a": spec()}, {"a": bare})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("b", r"models\.a\.chat_template: model 'b' borrows its template itself"),
        ("a", r"models\.a\.chat_template: model 'a' borrows its template itself"),
        ("no.jinja", r"models\.a\.chat_template: 'no\.jinja' is neither a model .* nor a file"),
    ],
)
def test_a_template_that_is_not_there_is_named(tokenizer, template, message):
    specs = {"a": spec(chat_template=template), "b": spec(chat_template="c"), "c": spec()}
    with pytest.raises(ModelError, match=message):
        chat_templates(specs, dict.fromkeys(specs, tokenizer))


def test_a_template_that_is_not_jinja_is_refused(tokenizer):
    with pytest.raises(ModelError, match=r"models\.a\.chat_template: not a Jinja template"):
        ChatTemplate(tokenizer, "a", "{% for %}")
    ChatTemplate(tokenizer, "a", CHATML)
