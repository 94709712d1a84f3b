from pathlib import Path
from typing import Any

import pytest

from solov2.config import load_config
from solov2.config.yaml_tree import Tree, merge, parse
from solov2.errors import ConfigError


def at_line(line: int) -> str:
    return f"f.yml:{line}"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("1e-4", 1e-4),
        ("-1E5", -1e5),
        ("1.e-3", 1e-3),
        (".5e1", 5.0),
        ("0.01", 0.01),
        ("12", 12),
        ("1e", "1e"),
        ("e5", "e5"),
        ("'1e-4'", "1e-4"),
        ("no", False),
        ("Yes", True),
        ("[1e-4, no, null, a]", [1e-4, False, None, "a"]),
        ("!ImageFolder {a: 1}", {"name": "ImageFolder", "a": 1}),
        ("!LinearWarmup", {"name": "LinearWarmup"}),
        ("{a: &x {b: 1}, c: *x}", {"a": {"b": 1}, "c": {"b": 1}}),
        ("{a: &x {b: 1, c: 2}, d: {<<: *x, c: 3}}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("{a: &x {b: 1}, d: &y {<<: *x, b: 3}, e: *y}", {"a": {"b": 1}, "d": {"b": 3}, "e": {"b": 3}}),
    ],
)
def test_values(text: str, value: Any) -> None:
    document = parse(text, at_line)
    assert document.problems == []
    assert document.value == value
    assert type(document.value) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1,\n c: 2}", "f.yml:3: b.c is written twice, first at f.yml:2: keep one"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "f.yml:1: unknown tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a:\n  !Callable x", "f.yml:2: unknown tag !Callable; known are !COCODataSet"),
        ("a: !PiecewiseDecay [1]", "f.yml:1: !PiecewiseDecay needs a mapping after it, got a list"),
        ("a: !PiecewiseDecay 3", "f.yml:1: !PiecewiseDecay needs a mapping after it, got '3'"),
        ("1: a", "f.yml:1: a key must be plain text, got '1'"),
        ("a: &x [*x]", "f.yml:1: an alias (*) stands inside the value it repeats"),
        ("a: 2020-01-02", "f.yml:1: unknown tag tag:yaml.org,2002:timestamp"),
    ],
)
def test_problems_are_collected(text: str, message: str) -> None:
    document = parse(text, at_line)
    assert document.readable
    assert [str(problem)[: len(message)] for problem in document.problems] == [message]


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: 1\n---\nb: 2", "\x01", "a: *nowhere"])
def test_broken_yaml_is_one_problem(text: str) -> None:
    document = parse(text, at_line)
    assert not document.readable
    assert [str(problem).startswith("f.yml:") for problem in document.problems] == [True]
    assert "not valid YAML" in document.problems[0].message


CODE = (
    "!!python/object/apply:os.system ['touch {0}']",
    "!!python/object/new:os.system ['touch {0}']",
    "!!python/object/apply:subprocess.check_call [[touch, {0}]]",
    "!!python/object/apply:builtins.exec [\"open('{0}', 'w')\"]",
    "!!python/object/apply:pathlib.Path.touch {{args: [!!python/object/apply:pathlib.Path ['{0}']]}}",
    "!!python/name:os.system {0}",
    "!!python/module:os {0}",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch {0}']",
    "!Callable ['os.system', 'touch {0}']",
    "!os.system ['touch {0}']",
)


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("place", ["a: 1\nb:\n  {}", "a: 1\nb:\n- - {}", "a: 1\nb: {{<<: [{}]}}", "a: 1\n? {}\n: 1"])
def test_nothing_in_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, place: str) -> None:
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    file = tmp_path / "recipe.yml"
    file.write_text("architecture: SOLOv2\n" + place.format(code.format(canary)) + "\n")
    with pytest.raises(ConfigError, match=r"recipe\.yml:[34]: "):
        load_config(file)
    with pytest.raises(ConfigError, match=r"-o"):
        load_config("nano", [f"ResNet={code.format(canary)}"])
    assert not canary.exists()
    assert list(tmp_path.iterdir()) == [file]


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lists = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for name, last in zip("bcdefghij", "abcdefghi", strict=True):
        lists += f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n"
    document = parse(lists, at_line)
    assert not document.readable
    assert "holds more than 100000 values" in document.problems[0].message


def test_lists_nested_too_deeply_are_one_problem() -> None:
    document = parse("a: " + "[" * 5000 + "]" * 5000, at_line)
    assert not document.readable
    assert [str(problem) for problem in document.problems] == ["f.yml:1: lists or mappings are nested too deeply"]


def test_origin_of_every_path() -> None:
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - y: 2\n", at_line)
    tree = Tree(document.value, document.origins)
    assert tree.origin(("a",)) == "f.yml:1"
    assert tree.origin(("a", "b")) == "f.yml:2"
    assert tree.origin(("a", "c", 0)) == "f.yml:4"
    assert tree.origin(("a", "c", 1, "y")) == "f.yml:5"
    assert tree.origin(("a", "b", "deeper")) == "f.yml:2"
    assert tree.origin(("z",)) == ""


def tree_of(text: str, file: str) -> Tree:
    document = parse(text, lambda line: f"{file}:{line}")
    return Tree(document.value, document.origins)


def test_merge_goes_deep_and_replaces_lists() -> None:
    base = tree_of("a: {b: 1, c: [1, {k: 2}]}\nd: {e: 1}\ng: 1", "base")
    merged = merge(base, tree_of("a:\n  c: [9]\nd: 5\ng: {h: 1}", "own"))
    assert merged.values == {"a": {"b": 1, "c": [9]}, "d": 5, "g": {"h": 1}}
    assert merged.origin(("a", "b")) == "base:1"
    assert merged.origin(("a", "c", 0)) == "own:2"
    assert ("a", "c", 1, "k") not in merged.origins
    assert merged.origin(("d", "e")) == "own:3"


def test_merge_leaves_its_arguments_alone() -> None:
    base, override = tree_of("a: {b: 1}", "base"), tree_of("a: {c: 2}", "own")
    merge(base, override)
    assert (base.values, override.values) == ({"a": {"b": 1}}, {"a": {"c": 2}})


def test_merge_with_an_empty_mapping_keeps_the_base() -> None:
    assert merge(tree_of("a: {b: 1}", "base"), tree_of("a: {}", "own")).values == {"a": {"b": 1}}
