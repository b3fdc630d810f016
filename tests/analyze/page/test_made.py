"""How a page says that it was made."""

import yaml

from analyze.page.made import made


def _made(maker, raw_config=None, **tables):
    page = maker.folder / "my page" / "report.html"
    return made(maker.analysis, [maker.analysis], maker.tables(**tables), raw_config or {}, page)


def test_commands_are_those_of_the_tables_that_are_there_and_the_report_last(maker):
    line = [{"feature": 5}]
    found = _made(maker, scaling=line, steer=line, steer_texts=line)
    commands = [" ".join(command.split()[:3]) for command in found.commands]
    assert commands == [
        "analyze scaling --store",
        "analyze steer --generate",
        "analyze report --store",
    ]
    assert "--out" in found.commands[-1]
    assert f"'{maker.folder}/my page'" in found.commands[-1]
    assert f"--baseline {maker.analysis.folder}" in found.commands[-1]


def test_missing_tables_name_their_command(maker):
    found = _made(maker, scaling=[{"feature": 5}])
    assert "scaling" not in found.missing
    assert found.missing["transfer"] == "analyze transfer"


def test_tables_of_another_subject_are_missing(maker):
    made_of_another = maker.tables(scaling=[{"feature": 5}])
    made_of_another._fingerprint = "another"
    found = made(maker.analysis, [], made_of_another, {}, maker.folder / "report.html")
    assert "scaling" in found.missing


def test_configuration_reads_back_as_it_was_but_for_secrets(maker):
    raw = {"train": {"k": 3, "token": "abc"}, "list": [{"password": "abc", "name": "ä"}]}
    shown = yaml.safe_load(_made(maker, raw).configuration)
    assert shown["train"] == {"k": 3, "token": "(not shown)"}
    assert shown["list"] == [{"password": "(not shown)", "name": "ä"}]
