"""Pushing to and pulling from a Hub that runs beside the test."""

import json
from collections.abc import Iterator

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

import train
from pipeline.errors import DictionaryError
from train.cli import app
from train.dictionary.artifact import save_dictionary
from train.hub import download, push_folder, read_figures
from train.model_card import model_card

from .fake_hub import Hub, fake_hub

# huggingface_hub's own, in the transfer that it uses where Xet is not spoken.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

REPO = "someone/some-dictionary"
METRICS = [
    {"step": 5, "loss": 2.0, "dead_fraction": 0.75},
    {"step": 5, "validation": {"fve": {"a": 0.1, "b": 0.1}, "l0": 9.0, "rows": 10}},
    {"step": 9, "loss": 1.0, "dead_fraction": 0.05},
    {"step": 9, "validation": {"fve": {"a": 0.8125, "b": None}, "l0": 3.96, "rows": 65536}},
]


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "hf_for_the_test")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    huggingface_hub.utils.disable_progress_bars()
    with fake_hub() as running:
        go_to(running.endpoint, monkeypatch)
        yield running
    huggingface_hub.utils.enable_progress_bars()
    huggingface_hub.close_session()


def go_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the environment's HF_ENDPOINT would, had it been there at the import."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def a_dfc(seed: int = 0) -> train.Dictionary:
    torch.manual_seed(seed)
    return train.DedicatedFeatureBatchTopKCrossCoder([5, 7], 40, k=4, a_exclusive=6, b_exclusive=4)


@pytest.fixture
def run_folder(tmp_path):
    """A folder as a finished run leaves it, with files that stay at home."""
    folder = tmp_path / "dictionary"
    provenance = {"recipe": "dfc", "train": {"k": 4, "steps": 9}, "store": {"path": "x"}}
    save_dictionary(folder, a_dfc().core, provenance)
    lines = "".join(json.dumps(line) + "\n" for line in METRICS)
    (folder / "metrics.jsonl").write_text(lines)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "9.safetensors").write_bytes(b"large")
    return folder


def same(one: train.Dictionary, other: train.Dictionary) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("name", ["dfc", "sae"])
def test_what_is_pushed_comes_back_bit_for_bit_under_its_name(hub, name):
    pushed = a_dfc() if name == "dfc" else train.BatchTopKSAE(6, 40, 4)
    commit = pushed.push_to_hub(REPO)
    loaded = train.Dictionary.from_pretrained(REPO)
    assert type(loaded) is type(pushed)
    assert loaded.partition == pushed.partition
    assert same(loaded, pushed)
    assert set(hub.files(REPO, commit)) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
    }


def test_revisions_are_branches_or_commits_and_main_is_left_alone(hub):
    first, second = a_dfc(0), a_dfc(1)
    old = first.push_to_hub(REPO)
    new = second.push_to_hub(REPO, revision="wide")
    assert old != new
    assert same(train.Dictionary.from_pretrained(REPO), first)
    assert same(train.Dictionary.from_pretrained(REPO, revision="wide"), second)
    third = a_dfc(2)
    newest = third.push_to_hub(REPO, revision="wide")
    assert same(train.Dictionary.from_pretrained(REPO, revision="wide"), third)
    assert same(train.Dictionary.from_pretrained(REPO, revision=new), second)
    assert download(REPO, revision="wide").commit == newest


def test_a_repository_is_private_if_asked(hub):
    a_dfc().push_to_hub(REPO, private=True)
    a_dfc().push_to_hub("someone/other")
    assert hub.private == {REPO}


def test_nothing_goes_into_a_public_repository_where_a_private_one_was_asked_for(hub):
    hub.create(REPO)
    one_line(REPO, "this one is there and public", lambda: a_dfc().push_to_hub(REPO, private=True))
    assert set(hub.files(REPO, "main")) == {".gitattributes"}


def test_a_run_is_pushed_with_its_card_and_without_its_checkpoints(hub, run_folder):
    pushed = push_folder(run_folder, REPO)
    files = hub.files(REPO, "main")
    assert not [name for name in files if "checkpoint" in name or "metrics" in name]
    assert files["model.safetensors"] == (run_folder / "model.safetensors").read_bytes()
    assert pushed.url == f"{hub.endpoint}/{REPO}/tree/{pushed.commit}"
    card = files["README.md"].decode()
    for line in (
        "library_name: crossdiff",
        "- dedicated-feature-crosscoder",
        "| FVE of a | 0.8125 |",
        "| FVE of b | - |",
        "| L0 (active features per row) | 3.96 |",
        "| dead features | 5.0% |",
        "| held-out rows | 65,536 |",
        "| a | a | 5 | reads and writes |",
        "| shared | a, b | 30 | 6 to 35 |",
        ' "recipe": "dfc",',
        '  "steps": 9',
        f'dictionary = Dictionary.from_pretrained("{REPO}")',
    ):
        assert line in card.splitlines(), line
    assert "license" not in card
    assert huggingface_hub.ModelCard(card).data.library_name == "crossdiff"


def test_a_card_of_the_users_own_is_never_replaced(hub, run_folder):
    push_folder(run_folder, REPO)
    written = hub.files(REPO, "main")["README.md"]
    own = b"---\nlicense: mit\n---\nMy own words.\n"
    hub.commit(REPO, "main", {"README.md": own})
    push_folder(run_folder, REPO)
    assert hub.files(REPO, "main")["README.md"] == own
    hub.commit(REPO, "main", {"README.md": written.replace(b"3.96", b"1.11")})
    push_folder(run_folder, REPO)
    assert hub.files(REPO, "main")["README.md"] == written
    (run_folder / "README.md").write_bytes(own)
    push_folder(run_folder, REPO)
    assert hub.files(REPO, "main")["README.md"] == own


def test_a_card_without_figures_says_so(tmp_path):
    save_dictionary(tmp_path, train.AutoEncoder(6, 40).core, {})
    description = json.loads((tmp_path / "config.json").read_text())
    assert read_figures(tmp_path) == {}
    card = model_card(REPO, description, {})
    assert "None are known for this dictionary." in card
    assert "- sparse-autoencoder" in card


def test_only_the_folder_asked_for_is_downloaded(hub):
    hub.create(REPO)
    a_dfc().push_to_hub(REPO)
    files = {n: c for n, c in hub.files(REPO, "main").items() if n.endswith((".json", "tensors"))}
    elsewhere = {f"deep/{name}": content for name, content in files.items()}
    hub.commit(REPO, "main", {**elsewhere, "deep/er/huge.pt": b"x", "notes.txt": b"x"})
    hub.requests.clear()
    loaded = train.Dictionary.from_pretrained(REPO, subfolder="deep")
    assert same(loaded, a_dfc())
    taken = {request.split("/")[-1] for request in hub.requests if "resolve" in request}
    assert taken == {"config.json", "model.safetensors"}
    assert all("deep/" in request for request in hub.requests if "resolve" in request)


def test_a_folder_without_a_dictionary_says_where_there_is_one(hub):
    hub.create(REPO)
    hub.commit(REPO, "main", {"layer_3/sae.safetensors": b"x", "config.json": b"{}"})
    with pytest.raises(
        DictionaryError,
        match="no dictionary in its root of this Hub repository; name a subfolder: layer_3",
    ):
        download(REPO)
    with pytest.raises(DictionaryError, match="no dictionary in layer_4"):
        download(REPO, subfolder="layer_4")


def test_offline_the_cache_serves_what_was_read_before(hub, monkeypatch):
    a_dfc().push_to_hub(REPO)
    commit = download(REPO).commit
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(train.Dictionary.from_pretrained(REPO), a_dfc())
    assert download(REPO).commit == commit
    one_line(REPO, "not in the local cache", lambda: download(REPO, revision="other"))
    one_line("someone/else", "not in the local cache", lambda: download("someone/else"))


def test_a_hub_that_does_not_answer_is_said_in_one_line(hub, monkeypatch):
    a_dfc().push_to_hub(REPO)
    download(REPO)
    nowhere = "http://127.0.0.1:9"
    go_to(nowhere, monkeypatch)
    assert same(train.Dictionary.from_pretrained(REPO), a_dfc())
    one_line("someone/else", nowhere, lambda: download("someone/else"))
    one_line(REPO, f"{nowhere} cannot be reached", lambda: a_dfc().push_to_hub(REPO))


def test_refusals_of_the_hub_are_said_in_one_line(hub):
    one_line("someone/else", "no such Hub repository", lambda: download("someone/else"))
    a_dfc().push_to_hub(REPO)
    one_line(REPO, "no revision 'v9'", lambda: download(REPO, revision="v9"))
    hub.refuse = True
    one_line(REPO, "no permission; log in", lambda: a_dfc().push_to_hub(REPO))


def test_an_upload_that_fails_and_a_card_that_the_hub_refuses_are_said_in_one_line(hub, run_folder):
    hub.lost = True
    one_line(REPO, "uploading 'model.safetensors' failed", lambda: push_folder(run_folder, REPO))
    (run_folder / "README.md").write_text("no head of metadata")
    one_line(REPO, "its README.md has no good metadata", lambda: push_folder(run_folder, REPO))


@pytest.mark.parametrize("name", ["a/b/c", "-bad/name", "a b"])
def test_a_name_that_no_repository_can_have_is_refused(hub, name):
    one_line(name, "give owner/name", lambda: a_dfc().push_to_hub(name))


def test_a_folder_that_holds_no_dictionary_is_not_pushed(hub, tmp_path, run_folder):
    with pytest.raises(DictionaryError, match=r"config\.json: no such file"):
        push_folder(tmp_path, REPO)
    (run_folder / "model.safetensors").unlink()
    with pytest.raises(DictionaryError, match=r"model\.safetensors: no such file"):
        push_folder(run_folder, REPO)
    assert hub.requests == []


def test_the_command_pushes_and_says_how_to_load(hub, run_folder):
    words = ["push", str(run_folder), REPO, "--private", "--revision", "wide"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    commit = hub.branches[REPO]["wide"]
    assert done.exit_code == 0
    assert hub.private == {REPO}
    assert done.stdout.splitlines() == [
        f"{run_folder}: pushed to {hub.endpoint}/{REPO}/tree/{commit}",
        f'next: train.Dictionary.from_pretrained("{REPO}", revision="{commit}")',
    ]


def test_what_the_command_did_as_json(hub, run_folder):
    words = ["push", str(run_folder), REPO, "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    found = json.loads(done.stdout)
    commit = hub.branches[REPO]["main"]
    url = f"{hub.endpoint}/{REPO}/tree/{commit}"
    assert found == {"folder": str(run_folder), "repo": REPO, "commit": commit, "url": url}


def test_an_imported_dictionary_is_pushed_and_knows_where_it_came_from(hub, tmp_path):
    weights = {"bias": torch.randn(6), "encoder.weight": torch.randn(9, 6)}
    weights |= {"encoder.bias": torch.randn(9), "decoder.weight": torch.randn(6, 9)}
    torch.save(weights, tmp_path / "ae.pt")
    words = ["import", str(tmp_path / "ae.pt"), "--out", str(tmp_path / "own")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    push_folder(tmp_path / "own", REPO)
    loaded = train.AutoEncoder.from_pretrained(REPO)
    assert torch.equal(loaded.core.W_enc["0"], weights["encoder.weight"])
    assert loaded.notes["source"]["library"] == "dictionary_learning"
    card = hub.files(REPO, "main")["README.md"].decode()
    assert "Imported from `ae.pt`: AutoEncoder of dictionary_learning." in card.splitlines()


def one_line(repo, message, action) -> None:
    with pytest.raises(DictionaryError) as caught:
        action()
    text = str(caught.value)
    assert text.startswith(repo)
    assert message in text
    assert "\n" not in text
