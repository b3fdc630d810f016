from pathlib import Path

import pytest

from pipeline.config import describe, load_config
from pipeline.errors import ConfigError

from .sections import FILE, Training, message


def test_values_of_the_file_are_read(load):
    assert load().section("train", Training).k == 16


def test_what_the_file_leaves_out_takes_its_default(load):
    assert load().section("train", Training).lr == 1e-3


def test_models_come_in_the_order_of_the_file(load):
    assert list(load().models) == ["a", "b"]


def test_an_unknown_key_is_refused_with_all_that_helps(load, tmp_path):
    config = load("train: {warmpu: 7, k: 3}")
    assert message(lambda: config.section("train", Training)) == (
        f"{tmp_path}/my.yaml: train.warmpu: unknown key (given 7); allowed: k, lr, schedule, steps"
    )


def test_a_key_nearly_right_is_suggested(load):
    config = load("train: {schedul: {}}")
    assert "; did you mean schedule?; allowed: k" in message(
        lambda: config.section("train", Training)
    )


def test_an_unknown_key_of_a_model_is_refused_with_the_keys_of_a_model(load, tmp_path):
    config = load(FILE.replace("{path: demo/a,", "{path: demo/a, hokpoint: 3,"))
    found = message(lambda: config.models)
    assert found.startswith(f"{tmp_path}/my.yaml: models.a.hokpoint: unknown key (given 3)")
    assert "did you mean hookpoint?" in found
    assert (
        "allowed: adapter, attention, chat_template, device, device_map, dtype, hookpoint, path, "
        "revision, site, trust_remote_code"
    ) in found


def test_an_unknown_key_in_a_nested_section_is_refused_with_its_keys(load):
    config = load("train: {schedule: {warm: 1}}")
    found = message(lambda: config.section("train", Training))
    assert "train.schedule.warm: unknown key (given 1); did you mean warmup?" in found
    assert found.endswith("allowed: warmup")


def test_an_unknown_key_in_a_list_is_refused_with_its_place(load):
    config = load("train: {steps: [{}, {warm: 1}]}")
    assert "train.steps.1.warm: unknown key" in message(lambda: config.section("train", Training))


def test_an_unknown_section_is_refused_when_the_file_is_read(load, tmp_path):
    assert message(lambda: load("trian: {k: 3}")) == (
        f"{tmp_path}/my.yaml: trian: unknown key (given {{'k': 3}}); did you mean train?; "
        "allowed: run_dir, models, corpus, store, harvest, train, analyze, slurm"
    )


def test_a_value_of_the_wrong_type_is_quoted(load, tmp_path):
    config = load("train: {k: many}")
    found = message(lambda: config.section("train", Training))
    assert found.startswith(f"{tmp_path}/my.yaml: train.k: given 'many'; input should be a valid")


def test_a_value_out_of_range_is_quoted_with_the_range(load):
    config = load("train: {k: 0}")
    found = message(lambda: config.section("train", Training))
    assert found.endswith("train.k: given 0; input should be greater than 0")


def test_a_section_that_is_no_mapping_is_refused(load):
    assert "train: given 5;" in message(lambda: load("train: 5").section("train", Training))


def test_a_required_key_left_out_is_named(load):
    config = load("models: {a: {path: x}}")
    assert message(lambda: config.models).endswith(
        "my.yaml: models.a.hookpoint: missing; this key is required"
    )


def test_shared_settings_left_out_are_named(load):
    assert message(lambda: load("train: {}").corpus).endswith(
        "my.yaml: corpus: missing; this command needs it"
    )


def test_a_name_of_a_model_that_cannot_be_a_column_is_refused(load):
    found = message(lambda: load("models: {A-1: {path: x, hookpoint: y}}").models)
    assert "models.A-1: given 'A-1'; string should match pattern" in found


def test_a_model_named_by_a_number_is_refused(load):
    assert "given 1;" in message(lambda: load("models: {1: {path: x, hookpoint: y}}").models)


@pytest.mark.parametrize("text", ["", "run_dir:", "# nothing\n"])
def test_a_run_dir_left_empty_takes_its_default(load, text):
    assert load(text).run_dir == Path("runs/default")


def test_a_section_left_empty_takes_its_defaults(load):
    assert load("train:").section("train", Training).k == 32


def test_everything_of_a_run_lies_beneath_its_run_dir(load):
    config = load()
    paths = {config.store_path, config.dictionary_path, config.analysis_path}
    assert {path.parent for path in paths} == {Path("runs/x")}


@pytest.mark.parametrize("written", ["1e-4", "1E-4", "0.0001", "1.0e-4", "'1e-4'"])
def test_a_learning_rate_may_be_written_as_people_write_it(load, written):
    assert load(f"train: {{lr: {written}}}").section("train", Training).lr == 1e-4


def test_a_file_asked_for_that_is_not_there_is_an_error(tmp_path):
    found = message(lambda: load_config(tmp_path / "no.yaml", []))
    assert found == f"{tmp_path}/no.yaml: no such file; name a configuration file"


def test_without_the_default_file_sections_take_their_defaults(tmp_path):
    config = load_config(tmp_path / "no.yaml", [], explicit=False)
    assert config.section("train", Training) == Training()


def test_without_the_default_file_what_is_needed_says_that_it_was_not_found(tmp_path):
    config = load_config(tmp_path / "no.yaml", [], explicit=False)
    assert message(lambda: config.models) == (
        f"{tmp_path}/no.yaml (not found): models: missing; this command needs it"
    )


@pytest.mark.parametrize("text", ["train: {k: 3", "a: b: c", "\ttrain: 1", "train: *k"])
def test_a_file_that_is_no_yaml_is_one_line_with_its_name(load, text):
    assert "my.yaml: not valid YAML: " in message(lambda: load(text))


@pytest.mark.parametrize("text", ["- train", "train", "5"])
def test_a_file_without_keys_is_refused_with_what_it_holds(load, text):
    assert "expected `key: value` lines at the top, got" in message(lambda: load(text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00train")
    assert "cannot be read" in message(lambda: load_config(tmp_path / "x.yaml", []))


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    assert "cannot be read" in message(lambda: load_config(tmp_path, []))


COMMAND = "!!python/object/apply:os.system ['touch {}']"


def test_a_file_cannot_run_a_program(load, tmp_path):
    found = message(lambda: load("run_dir: " + COMMAND.format(tmp_path / "ran")))
    assert "not valid YAML" in found
    assert not (tmp_path / "ran").exists()


def test_an_override_cannot_run_a_program(load, tmp_path):
    config = load(FILE, "run_dir=" + COMMAND.format(tmp_path / "ran"))
    assert "!!python" in str(config.run_dir)
    assert not (tmp_path / "ran").exists()


def test_sections_are_frozen(load):
    from pydantic import ValidationError

    section = load().section("train", Training)
    with pytest.raises(ValidationError, match="frozen"):
        section.k = 3


def test_describe_tells_each_key_with_default_and_meaning():
    found = describe(Training, "train")
    assert "k (default 32): active features per row" in found


def test_describe_marks_keys_that_must_be_given():
    from pipeline.specs import CorpusSpec, ModelSpec

    assert "path (required): local folder" in describe(ModelSpec, "models.NAME")
    assert "path (default null): a .parquet" in describe(CorpusSpec, "corpus")
    assert "sources (default {}): several sources" in describe(CorpusSpec, "corpus")


def test_a_key_given_twice_is_refused(tmp_path):
    file = tmp_path / "twice.yaml"
    file.write_text("run_dir: a\ntrain: {}\nrun_dir: b\n")
    with pytest.raises(ConfigError, match="'run_dir' is given twice"):
        load_config(file, [])


def test_run_dir_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(tmp_path / "none", ["run_dir=~/x"], explicit=False).run_dir == tmp_path / "x"


@pytest.mark.parametrize(
    ("corpus", "said"),
    [
        ("{}", "corpus: given {}; needs a path, or sources"),
        (
            "{path: x.txt, sources: {web: {path: y.txt}}}",
            "path stand beside sources; put",
        ),
        (
            "{limit: 3, sources: {web: {path: y.txt}}}",
            "limit stand beside sources; put",
        ),
        ("{sources: {web: {weight: 2}}}", "sources.web needs a path"),
        ("{sources: {web: {path: y.txt, weight: 0}}}", "corpus.sources.web.weight: given 0; input"),
        ("{sources: {Web: {path: y.txt}}}", "corpus.sources.Web"),
    ],
)
def test_a_corpus_is_one_source_or_several(load, corpus, said):
    text = FILE.replace("corpus: {path: corpus.parquet}", f"corpus: {corpus}")
    assert said in message(lambda: load(text).corpus)


def test_sources_have_names_also_where_there_is_one(load):
    assert load().corpus.named_sources["corpus"].path == "corpus.parquet"
    text = FILE.replace("{path: corpus.parquet}", "{sources: {b: {path: '-'}, a: {path: x}}}")
    corpus = load(text).corpus
    assert list(corpus.named_sources) == ["b", "a"]
    assert corpus.piped


@pytest.mark.parametrize("given", ["mlp_in.3", "[mlp_in.3]"])
def test_a_model_has_one_hookpoint_or_a_list(load, given):
    text = FILE.replace("hookpoint: model.layers.1", f"hookpoint: {given}")
    assert load(text).models["a"].hookpoint == ("mlp_in.3",)


def test_a_model_without_a_hookpoint_is_refused(load):
    text = FILE.replace("hookpoint: model.layers.1", "hookpoint: []")
    assert "models.a.hookpoint" in message(lambda: load(text).models)
