"""Chats in all their forms, and class labels, become documents; anything else is named."""

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from harvest.corpus.document import Document, Turn, transcript
from harvest.corpus.reader import read_documents
from pipeline.errors import CorpusError
from pipeline.specs import CorpusSpec

TURNS = (Turn("user", "What is 1+1?\n"), Turn("assistant", ""), Turn("tool", "漢字"))


def read(folder, suffix: str, *chats) -> list[Document]:
    file = folder / f"chats{suffix}"
    rows = [{"messages": chat} for chat in chats]
    if suffix == ".parquet":
        Dataset.from_list(rows).to_parquet(file)
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_documents(CorpusSpec(path=str(file), chat_column="messages")))


def in_parts(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": part} for part in (content[:4], content[4:])]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
@pytest.mark.parametrize(
    "chat",
    [
        [{"role": turn.role, "content": turn.content} for turn in TURNS],
        [{"role": turn.role, "content": turn.content, "name": None} for turn in TURNS],
        [{"role": turn.role, "content": in_parts(turn.content)} for turn in TURNS],
        [
            {"from": role, "value": turn.content}
            for role, turn in zip(["human", "gpt", "tool"], TURNS, strict=True)
        ],
    ],
)
def test_a_chat_keeps_its_turns_and_its_text_is_their_transcript(tmp_path, suffix, chat):
    (document,) = read(tmp_path, suffix, chat)
    assert document.turns == TURNS
    assert document.text == "<user>\nWhat is 1+1?\n\n<assistant>\n\n<tool>\n漢字\n"
    assert document.text == transcript(TURNS)


def test_the_forms_may_change_from_line_to_line(tmp_path):
    plain = [{"role": "user", "content": "hello"}]
    parts = [{"role": "user", "content": in_parts("hello")}]
    first, second, empty = read(tmp_path, ".jsonl", plain, parts, [])
    assert first == second
    assert empty == Document("", "")


@pytest.mark.parametrize(
    ("chat", "shown"),
    [
        ("hello", "holds 'hello' in 'messages', not a list"),
        (None, "holds None in 'messages', not a list"),
        (["hello"], "holds 'hello' as turn 1 of 1 in 'messages', not {role, content}"),
        ([{"role": "user"}], "not {role, content} with text in both"),
        ([{"content": "x"}], "not {role, content} with text in both"),
        ([{"role": "user", "content": None}], "'content': None"),
        ([{"role": "user", "content": [{"type": "image", "text": "x"}]}], "'image'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "'type': 'text'"),
        ([{"role": "user", "content": "x" * 500}, 5], "holds 5 as turn 2 of 2 in"),
        ([{"role": 1, "content": "x" * 500}], "xxx..."),
        ([{"role": "user", "content": "\ud83d"}], r"holds '\ud83d' in 'messages', half of a"),
    ],
)
def test_what_is_no_chat_is_named_by_document_and_value(tmp_path, chat, shown):
    good = [{"role": "user", "content": "fine"}]
    with pytest.raises(CorpusError) as error:
        read(tmp_path, ".jsonl", good, chat)
    message = str(error.value)
    assert message.startswith(f"corpus.chat_column: document 1 of {tmp_path}/chats.jsonl holds")
    assert shown in message
    assert "remove it or name another column" in message
    assert len(message) < 400


def test_class_labels_are_shown_by_name(tmp_path):
    features = Features({"text": Value("string"), "domain": ClassLabel(names=["prose", "code"])})
    table = Dataset.from_dict({"text": ["a", "b", "c"], "domain": [1, 0, None]}, features=features)
    table.to_parquet(tmp_path / "x.parquet")
    table.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "x.parquet", tmp_path / "saved"):
        found = read_documents(CorpusSpec(path=str(path), label_column="domain"))
        assert [document.label for document in found] == ["code", "prose", ""]
