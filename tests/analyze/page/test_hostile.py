"""A corpus, tokens, names and labels that try to break out of the page: all of it stays text."""

import re

import numpy as np
import pytest
import torch

from store.block import Block
from store.reader import Store
from store.schema import Hookpoint, StoreSchema
from store.writer import PartWriter
from train.dictionary.artifact import save_dictionary
from train.dictionary.crosscoder import Crosscoder, HookpointShape
from train.dictionary.partition import dedicated

from .conftest import AnalyzeConfig, maker_of

FLAG = "window.broken=1"
HOSTILE = [
    f"<script>{FLAG}</script>",
    f"</script><script>{FLAG}</script>",
    f"<!--<script>{FLAG}",
    f"<img src=x onerror={FLAG}>",
    f"\"><svg onload='{FLAG}'>",
    f"'-{FLAG}-'",
    f"${{{FLAG}}}{{{{{FLAG}}}}}",
    f"]]><script>{FLAG}</script>",
    f"javascript:{FLAG}",
    f"\\u003cscript>{FLAG}</script>",
    "</style></title></textarea></noscript></template>",
    "&lt;b&gt;&#60;i&#62;&amp;",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "\x00\x01\x1b[31m\x7f\x85\ufeff",
    "line\u2028separator\u2029s",
    "half \ud83d of a pair, \udc4b the other",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👋🏽",
    "漢字 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
]
LONG = "x" * 100_000
A, B = "a.out", "b.out"
EVIL = f"b<img src=x onerror={FLAG}>"


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory):
    """A document per hostile text, labelled with a hostile label; one has a token of 100 kB."""
    path = tmp_path_factory.mktemp("hostile") / "store.zarr"
    hookpoints = (Hookpoint(A, "a", 4), Hookpoint(B, EVIL, 4))
    schema = StoreSchema(hookpoints, 64, {"models.a": "1", f"models.{EVIL}": "2"}, {})
    labels = [HOSTILE[0], f'"><script>{FLAG}</script>', "\u202elabel"]
    with PartWriter(path, schema) as writer:
        for number, text in enumerate([*HOSTILE, LONG]):
            words = ["before ", text, " behind"]
            ends = np.cumsum([len(word) for word in words]).astype(np.int32)
            rows = torch.zeros(3, 4)
            rows[1, 3] = 20.0 - number
            zeros = np.zeros(3, np.int32)
            writer.append(
                Block(
                    texts=["".join(words)],
                    labels=[labels[number % 3]],
                    sources=["corpus"],
                    activations={A: (0 * rows).bfloat16(), B: rows.bfloat16()},
                    document=zeros,
                    char_start=np.concatenate([zeros[:1], ends[:-1]]),
                    char_end=ends,
                    tokens={"a": zeros, EVIL: zeros},
                    tokens_read={"a": 3, EVIL: 3},
                    tokens_paired={"a": 3, EVIL: 3},
                ),
                number + 1,
            )
        writer.finish()
    return Store(path)


@pytest.fixture(scope="module")
def hostile_dictionary(tmp_path_factory):
    """Features [a: 1 | shared: 1 | b: 1]; the last reads the fourth coordinate of the second."""
    folder = tmp_path_factory.mktemp("hostile") / f"dictionary {FLAG}"
    partition = dedicated(("a", EVIL), 3, {"a": 1 / 3, EVIL: 1 / 3})
    shapes = (HookpointShape(A, "a", 4), HookpointShape(B, EVIL, 4))
    dictionary = Crosscoder(shapes, partition)
    with torch.no_grad():
        for weights in (*dictionary.W_enc.values(), *dictionary.W_dec.values()):
            weights.zero_()
        dictionary.W_enc["1"][1, 3] = dictionary.W_dec["1"][1, 3] = 1.0
    save_dictionary(folder, dictionary, {"recipe": f"<script>{FLAG}</script>"})
    return folder


@pytest.fixture(scope="module")
def hostile_maker(hostile_store, hostile_dictionary, tmp_path_factory):
    config = AnalyzeConfig(device="cpu", min_fires=1, contexts=64, planted={EVIL: HOSTILE[0]})
    folder = tmp_path_factory.mktemp("page")
    return maker_of(hostile_store, hostile_dictionary, folder, config), config


def _texts(file, browser, selectors):
    """What is shown of feature 2, after everything on the page has been used."""
    page = browser.page(file, hash="#feature-2")
    page.settle(100)
    page.run("document.querySelectorAll('#detail details').forEach((e) => (e.open = true))")
    found = [page.texts(f"#detail {selector}") for selector in selectors]
    page.press("Escape")
    page.choose("#query", "<script>")
    page.choose("#by-label", "0")
    page.settle(300)
    shown = page.run("document.body.innerText")
    assert page.run("window.broken ?? 'unbroken'") == "unbroken"
    assert page.run("document.querySelectorAll('img, iframe, object, embed, link').length") == 0
    assert page.complaints() == []
    page.close()
    return found, shown


def _plain(text):
    """Text as UTF-8 can hold it: what the browser hands over of halves of pairs varies."""
    return re.sub("[�\ud800-\udfff]+", "�", text)


@pytest.fixture(scope="module")
def from_store(hostile_maker, browser):
    maker, config = hostile_maker
    raw = {"run_dir": f"</pre><script>{FLAG}</script>", "corpus": {"token": "secret-of-mine"}}
    file = maker.page(config, raw)
    return file.read_text(), *_texts(file, browser, [".context .text", ".legend", "h2"])


def test_texts_of_the_store_are_shown_as_they_are(from_store):
    _, (contexts, _, _), _ = from_store
    plain = [_plain(context) for context in contexts]
    for text in HOSTILE:
        assert _plain(f"before {text} behind") in plain


def test_a_token_of_a_hundred_thousand_characters_is_shortened_and_it_is_said(from_store):
    _, (contexts, _, _), _ = from_store
    long = next(context for context in contexts if "xxxx" in context)
    assert long.startswith("before xxxx")
    assert long.endswith("xxxx behind")
    assert len(long) < 1000


def test_labels_models_and_recipes_are_shown_as_they_are(from_store):
    _, (_, legends, titles), shown = from_store
    assert HOSTILE[0] in " ".join(legends)
    assert EVIL in titles[0]
    assert f"<script>{FLAG}</script> dictionary" in shown


def test_nothing_of_the_corpus_stands_in_the_page_as_markup(from_store):
    page, _, _ = from_store
    assert FLAG in page
    assert not re.search("<(img|svg on|!--)", page)
    assert page.count("<script") == page.count("</script>")


def test_secrets_of_the_configuration_are_not_shown(from_store):
    page, _, _ = from_store
    assert "secret-of-mine" not in page
    assert "(not shown)" in page


def test_what_turns_text_round_is_named_and_kept_inside_its_place(hostile_maker, browser):
    maker, config = hostile_maker
    page = browser.page(maker.page(config), hash="#feature-2")
    page.settle(100)
    codes = page.run("[...document.querySelectorAll('#detail .hidden-mark')].map((e) => e.title)")
    assert {"U+202E", "U+202C", "U+0000", "U+001B", "U+2028", "U+FEFF", "U+D83D"} <= set(codes)
    isolated = page.run(
        "[...document.querySelectorAll('#detail .hidden-mark, #detail .context .text')]"
        ".every((e) => getComputedStyle(e).unicodeBidi === 'isolate')"
    )
    assert isolated
    page.close()


def test_tables_are_shown_as_they_are(hostile_maker, browser):
    maker, config = hostile_maker
    texts = [text for text in HOSTILE if text == _plain(text)]
    tables = {
        "contexts": [
            {
                **{"feature": 2, "band": text, "rank": n, "document": n, "label": text},
                **{"row": n, "activation": 1.0, "pieces": [text, LONG, text], "peak": 2},
                "strengths": [0.0, 1.0, 0.5],
            }
            for n, text in enumerate(texts)
        ],
        "tokens": [
            {"feature": 2, "model": EVIL, "promoted": True, "rank": n, "token": text, "logit": 1.0}
            for n, text in enumerate(texts)
        ],
        "exclusivity": [
            {"feature": 2, "claimed_for": EVIL, "group": EVIL, "verdict": texts[1], "q": 0.5}
            | {"p": 0.5, "reason": texts[2], texts[3]: 1.0, f"p_{texts[3]}": 0.1}
        ],
        "steer": [
            {"feature": 2, "steered": text, "alpha": 1.0, "kl_firing": 1.0, "kl_silent": None}
            for text in texts
        ],
        "steer_texts": [
            {"feature": 2, "steered": text, "alpha": 1.0, "prompt": text, "text": text + LONG}
            for text in texts
        ],
        "explanations": [{"feature": 2, "explanation": texts[0]}],
        "neighbours": [{"feature": 2, "model": texts[0], "rank": 0, "neighbour": 1, "cosine": 0.5}],
        "compare": [
            {"feature": 2, "other_feature": 1, "other": texts[0], "other_called": texts[1]}
        ],
        "fidelity": [{"model": texts[0], "label": "all", "loss_recovered": 0.5}],
        "replace": [{"set": texts[0], "ranking": texts[1], "kl": 0.5}],
    }
    selectors = [".context .text", ".token", ".sample", ".explanation", ".facts th"]
    found, _ = _texts(maker.page(config, **tables), browser, selectors)
    contexts, tokens, samples, explanation, facts = found
    for text in texts:
        assert any(context.startswith(text) and context.endswith(text) for context in contexts)
        assert text in tokens
        assert any(text in sample for sample in samples)
    assert explanation == [texts[0]]
    assert texts[3].replace("_", " ") in facts


def test_a_script_that_got_in_would_not_run(hostile_maker, browser, tmp_path):
    maker, config = hostile_maker
    page = maker.page(config).read_text()
    pierced = page.replace(
        "<main>", f"<main><script>{FLAG}</script><p onclick='{FLAG}' id=trap>x</p>"
    )
    (tmp_path / "pierced.html").write_text(pierced)
    opened = browser.page(tmp_path / "pierced.html")
    opened.run("document.getElementById('trap').click()")
    assert opened.run("window.broken ?? 'unbroken'") == "unbroken"
    assert len(opened.complaints()) == 2
    opened.close()
