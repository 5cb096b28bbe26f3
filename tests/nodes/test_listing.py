"""The list of saved posteriors: what is in it, what it leaves out, and when the disk is read."""

from __future__ import annotations

import importlib
import json
import os
import time
from contextlib import contextmanager

import pytest

from nodes import listing
from nodes.listing import files_below
from tests.nodes.stub_host import library, nodes

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


def test_names_that_are_no_text_and_folders_named_like_files_are_left_out(folder):
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    for kind in (lambda path: open(path, "w").close(), os.mkdir):
        kind(os.fsencode(folder) + b"/\xff" + kind.__name__.encode() + b".safetensors")
    names = files_below(str(folder), SUFFIX)
    assert names == ["b.safetensors", "vipaint/a.safetensors"]
    json.dumps(names, ensure_ascii=False).encode()


@contextmanager
def deep_folder(root, depth):
    """Folders within each other, removed one by one: pytest's own removal has one call for each."""
    here = os.getcwd()
    os.chdir(root)
    try:
        for _ in range(depth):
            os.mkdir("deep")
            os.chdir("deep")
        yield
    finally:
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("deep")
        os.chdir(here)


def test_a_folder_deeper_than_a_call_stack_and_links_in_a_ring_end(folder):
    (folder / "one").mkdir()
    (folder / "one" / "two").symlink_to(folder / "other")
    (folder / "other").mkdir()
    (folder / "other" / "three").symlink_to(folder / "one")
    with deep_folder(folder, 1500):
        assert files_below(str(folder), SUFFIX) == ["b.safetensors", "vipaint/a.safetensors"]


def test_a_large_folder_is_listed_quickly(tmp_path):
    names = sorted(f"{number}.safetensors" for number in range(5000))
    for name in names:
        (tmp_path / name).touch()
    began = time.perf_counter()
    assert files_below(str(tmp_path), SUFFIX) == names
    assert time.perf_counter() - began < 2


def test_no_name_breaks_a_schema(monkeypatch, folder):
    """The list of the node itself, with a broken file of every kind in its folders."""
    (folder / "dangling.safetensors").symlink_to(folder / "gone")
    (folder / "folder.safetensors").mkdir()
    (folder / "ring.safetensors").symlink_to(folder / "ring.safetensors")
    node = nodes()["VIPaintLoadPosterior"]
    paths = importlib.import_module(node.__module__).folder_paths
    monkeypatch.setattr(paths, "get_folder_paths", lambda _: [str(folder), str(folder / "gone"), str(folder)])
    monkeypatch.setattr(paths, "get_output_directory", lambda: str(folder / "b.safetensors"))
    (file,) = node.define_schema().inputs
    assert file.options == ["b.safetensors", "vipaint/a.safetensors"]


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, NotADirectoryError])
def test_checkpoints_that_cannot_be_listed_leave_the_embedded_prior(monkeypatch, error):
    def refuse(_):
        raise error(1, "no")

    node = nodes()["VIPaintLoadLDMCheckpoint"]
    monkeypatch.setattr(importlib.import_module(node.__module__).folder_paths, "get_filename_list", refuse)
    (file,) = node.define_schema().inputs
    assert file.options == ["embedded prior (64x64 scenes)"]


@pytest.mark.parametrize("name", ["", "a" * 5000 + SUFFIX, "a/" * 3000, "\0.safetensors", "\ud800.safetensors", "../x"])
def test_a_name_that_no_file_can_have_is_missing(monkeypatch, folder, name):
    node = nodes()["VIPaintLoadPosterior"]
    paths = importlib.import_module(node.__module__).folder_paths
    monkeypatch.setattr(paths, "get_folder_paths", lambda _: [str(folder)])
    monkeypatch.setattr(paths, "get_output_directory", lambda: str(folder))
    for file in (name, f"output: {name}"):
        assert "is not in models/vipaint" in node.validate_inputs(file)
        with pytest.raises(library("vipaint_ops.errors").InputError, match=r"^file is "):
            node.execute(file=file)
