import hashlib
import json
import logging
from pathlib import Path

import pytest

from solov2.errors import WeightsError
from solov2.weights.cache import (
    cache_folder,
    download_place,
    downloads,
    full_address,
    is_cut_short,
    model_place,
    record_place,
    remember,
    remembered,
    shown,
    verify,
)
from solov2.weights.zoo import ZOO


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOLOV2_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def test_the_variable_moves_the_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == home
    assert model_place("a") == home / "models" / "a.safetensors"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOLOV2_HOME", "beside")
    assert cache_folder() == tmp_path / "beside"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("SOLOV2_HOME", "~/weights")
    assert cache_folder() == tmp_path / "me" / "weights"


def test_a_home_that_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLOV2_HOME", "~nobody_of_this_name/x")
    with pytest.raises(WeightsError, match="SOLOV2_HOME is '~nobody_of_this_name/x'; there is no such home folder"):
        cache_folder()


@pytest.mark.parametrize("value", [None, ""])
def test_without_it_the_users_cache_folder(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOLOV2_HOME")
    if value is not None:
        monkeypatch.setenv("SOLOV2_HOME", value)
    folder = cache_folder()
    assert "solov2" in folder.parts
    assert folder.is_absolute()


def test_nothing_is_made_by_asking(home: Path) -> None:
    download_place("https://a.b/c")
    assert downloads() == []
    assert not home.exists()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://a.example/models/x.pth", "a.example/models/x.pth"),
        ("HTTP://A.Example//models/./x.pth", None),
        ("http://a.example:8080/x.pth", "a.example_8080/x.pth"),
        ("http://user:secret@a.example/x.pth", "a.example/x.pth"),
        ("ppdet://models/x.pdparams", "paddledet.bj.bcebos.com/models/x.pdparams"),
        ("http://[::1]/x.pth", "__1/x.pth"),
    ],
)
def test_places(home: Path, url: str, place: str | None) -> None:
    found = download_place(url)
    if place is not None:
        assert found == home / "downloads" / place
    assert found.is_relative_to(home / "downloads")
    assert ".." not in found.parts


def test_each_address_has_a_place_of_its_own(home: Path) -> None:
    urls = [
        "https://a.example/x.pth",
        "https://a.example/x.pth?version=1",
        "https://a.example/x.pth?version=2",
        "https://a.example/y/x.pth",
        "https://a.example/../x.pth",
        "https://a.example/%2e%2e/x.pth",
        "https://a.example/.x.pth",
        "https://a.example/_x.pth",
        "https://a.example/x y.pth",
        "https://a.example/x+y.pth",
        "https://a.example/ä.pth",
        "https://a.example/" + "x" * 300 + ".pth",
        "https://a.example/" + "x" * 301 + ".pth",
        "https://a.example/..\\..\\x.pth",
        "https://a.example",
        "https://b.example/x.pth",
        *(entry.url for entry in ZOO if not entry.shipped),
    ]
    places = [download_place(url) for url in urls]
    assert len(set(places)) == len(urls)
    for place in places:
        assert place.resolve().is_relative_to(home / "downloads")
        assert not place.name.startswith(".")
        assert len(place.name) < 200
        assert place.relative_to(home).as_posix().isascii()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.example/x", "x.pth", "/x.pth", "", "http://", "https:///x", "s3://a/x"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(WeightsError, match="not an address to download from; expected http://, https:// or ppdet://"):
        full_address(url)


@pytest.mark.parametrize("url", ["http://[::1/x", "http://a.example:port/x", "http://a.example:99999/x"])
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(WeightsError, match="not a valid address"):
        download_place(url)


def test_secrets_are_not_shown() -> None:
    assert shown("https://user:secret@a.example:1/x.pth?token=secret#y") == "https://a.example:1/x.pth"


def test_what_is_remembered(home: Path) -> None:
    place = download_place("https://a.example/x.pth")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"by hand")
    assert verify(place) == sha256(b"by hand")
    assert remembered(place) is None  # to look at a file is not to have used it
    assert not is_cut_short(place)
    remember(place, verify(place))
    assert verify(place) == sha256(b"by hand") == remembered(place)
    assert json.loads(record_place(place).read_text()) == {"sha256": sha256(b"by hand"), "bytes": 7}
    assert verify(place) == sha256(b"by hand")
    assert downloads() == [place]  # neither the record nor what is hidden
    assert not is_cut_short(place)
    (place.parent / ".x.pth.abc").write_bytes(b"unfinished")
    assert downloads() == [place]


def test_a_changed_file_is_refused(home: Path) -> None:
    place = home / "x.pth"
    home.mkdir()
    place.write_bytes(b"first")
    remember(place, sha256(b"first"))
    place.write_bytes(b"other")
    with pytest.raises(WeightsError) as caught:
        verify(place)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(place), sha256(b"first"), sha256(b"other"), "delete the file to download it anew"):
        assert part in message
    record_place(place).unlink()  # as the message says
    assert verify(place) == sha256(b"other")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sha256": 5}', '{"sha256": "abc"}', "\udcff", "null"])
def test_a_damaged_record(home: Path, text: str) -> None:
    place = home / "x.pth"
    home.mkdir()
    place.write_bytes(b"x")
    record_place(place).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WeightsError, match=r"x\.pth\.sha256\.json: damaged .* delete it to trust"):
        verify(place)


def test_a_file_that_cannot_be_read(home: Path) -> None:
    with pytest.raises(WeightsError, match=r"x\.pth: cannot be read \(No such file"):
        verify(home / "x.pth")


def test_a_record_that_cannot_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = home / "x.pth"
    home.mkdir()
    place.write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("solov2.weights.cache.write_atomically", refuse)
    with caplog.at_level(logging.WARNING):
        remember(place, sha256(b"x"))
    assert caplog.messages == [f"{place}: its SHA-256 cannot be remembered (Permission denied)"]
