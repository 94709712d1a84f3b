import stat
from pathlib import Path

import pytest

from solov2.atomic import write_atomically


def test_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("old")
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"


def test_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_the_file_appears_at_the_end_only(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # a move within a file system is atomic
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError("disk full"), ValueError("wrong"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_failing_write_leaves_no_trace(tmp_path: Path, error: BaseException, old: str | None) -> None:
    path = tmp_path / "c.txt"
    if old is not None:
        path.write_text(old)

    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_writer_that_removes_its_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "c.txt", Path.unlink)
    assert list(tmp_path.iterdir()) == []
