import os
from pathlib import Path

import pytest

from parley_kit.files import replace_durably


def test_file_is_replaced_whole_and_on_disk_before_anybody_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, synced = tmp_path / "note", list[tuple[str, bytes]]()

    def fsync(handle: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{handle}").readlink()), path.read_bytes() if path.exists() else b""))

    monkeypatch.setattr(os, "fsync", fsync)
    for content in (b"first", b"second"):
        replace_durably(path, content)
        assert content == path.read_bytes()
    draft, folder = f"{path}.new", str(tmp_path)
    assert [(draft, b""), (folder, b"first"), (draft, b"first"), (folder, b"second")] == synced
    assert ["note"] == [each.name for each in tmp_path.iterdir()]


def test_file_that_can_not_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "note"
    replace_durably(path, b"first")
    (tmp_path / "note.new").mkdir()
    with pytest.raises(OSError, match=r"note\.new"):
        replace_durably(path, b"second")
    assert b"first" == path.read_bytes()
