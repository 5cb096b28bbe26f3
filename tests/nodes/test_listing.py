"""The list of saved posteriors: what is in it, what it leaves out, and when the disk is read."""

from __future__ import annotations

import os

import pytest

from nodes import listing
from nodes.listing import files_below

SUFFIX = ".safetensors"


@pytest.fixture
def folder(tmp_path):
    """Two posteriors, one in a folder of its own, and a picture."""
    (tmp_path / "vipaint").mkdir()
    for name in ("b.safetensors", "vipaint/a.safetensors", "picture.png"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def read(monkeypatch):
    """The folders that are read from the disk."""
    folders, listdir = [], os.listdir
    monkeypatch.setattr(listing.os, "listdir", lambda path: folders.append(path) or listdir(path))
    return folders


def test_files_of_all_folders_by_their_relative_path(folder):
    assert files_below(str(folder), SUFFIX) == ["b.safetensors", "vipaint/a.safetensors"]


def test_a_missing_folder_has_no_files(tmp_path):
    assert files_below(str(tmp_path / "missing"), SUFFIX) == []


def test_folders_are_read_once(folder, read):
    files_below(str(folder), SUFFIX)
    assert read == [str(folder), str(folder / "vipaint")]
    files_below(str(folder), SUFFIX)
    assert len(read) == 2


def test_only_the_folder_that_changed_is_read_again(folder, read):
    files_below(str(folder), SUFFIX)
    read.clear()
    (folder / "vipaint" / "new.safetensors").touch()
    os.utime(folder / "vipaint", ns=(1, 1))
    assert "vipaint/new.safetensors" in files_below(str(folder), SUFFIX)
    assert read == [str(folder / "vipaint")]


def test_links_that_lead_nowhere_are_left_out(folder):
    (folder / "dangling.safetensors").symlink_to(folder / "gone")
    (folder / "dangling folder").symlink_to(folder / "gone")
    (folder / "itself.safetensors").symlink_to(folder / "itself.safetensors")
    assert files_below(str(folder), SUFFIX) == ["b.safetensors", "vipaint/a.safetensors"]


def test_a_link_to_a_folder_above_ends(folder):
    (folder / "vipaint" / "loop").symlink_to(folder)
    assert files_below(str(folder), SUFFIX) == ["b.safetensors", "vipaint/a.safetensors"]


def test_a_folder_that_cannot_be_read_is_left_out(folder, monkeypatch):
    def listdir(path, original=os.listdir):
        if os.path.basename(path) == "vipaint":
            raise PermissionError(13, "Permission denied", path)
        return original(path)

    monkeypatch.setattr(listing.os, "listdir", listdir)
    assert files_below(str(folder), SUFFIX) == ["b.safetensors"]
