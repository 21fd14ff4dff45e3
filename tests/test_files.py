"""What is written whole or not at all."""

import pytest

from understudy.files import whole


def test_a_file_is_there_when_the_block_ends(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(error), whole(path) as partial:
        partial.write_text("ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_an_empty_one(tmp_path):
    (folder := tmp_path / "x").mkdir()
    with whole(folder) as partial:
        partial.mkdir()
        (partial / "y").write_text("1")
    assert (folder / "y").read_text() == "1" and list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_fails_is_removed_with_its_files(tmp_path):
    with pytest.raises(OSError), whole(tmp_path / "x") as partial:
        partial.mkdir()
        (partial / "y").write_text("1")
        raise OSError
    assert not list(tmp_path.iterdir())
