"""Tables of ``vipaint batch``: what each row becomes, and how the rest is refused."""

import csv
import io
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ops.conftest import scene
from vipaint_ops.cli.items import item_commands, read_items
from vipaint_ops.cli.main import main
from vipaint_ops.cli.parser import build_parser
from vipaint_ops.errors import InputError
from vipaint_ops.images.pictures import save_image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for kind in ("photos", "masks"):
        (folder / kind).mkdir()
        for name in ("a", "b"):
            save_image(folder / kind / f"{name}.png", scene())
    return folder


@pytest.mark.parametrize(("package", "table", "options"), [("pyarrow", "a.parquet", []), ("ray", "a.csv", ["--ray"])])
def test_what_needs_an_absent_package_says_how_to_install_it(package, table, options, pictures, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    (pictures / table).write_bytes(cells(**GOOD))
    assert main(["batch", str(pictures / table), "--out", str(pictures / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vipaint: error: package {package!r} is missing")
    assert f"run pip install '.[{options[0][2:] if options else 'parquet'}]'" in line
    assert not (pictures / "out").exists()


def test_damaged_parquet_ends_in_one_line(tmp_path, capsys):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    assert main(["batch", str(tmp_path / "a.parquet"), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pyarrow" in line or "cannot be read as Parquet" in line


def cells(**given):
    """A table of one row, as text."""
    return f"{','.join(given)}\n{','.join(given.values())}\n".encode()


GOOD = {"image": "photos/a.png", "mask": "masks/a.png"}
BAD_TABLES = {
    "empty": (b"", "has no rows"),
    "header": (b"image,mask\n", "has no rows"),
    "no mask": (cells(image="photos/a.png"), "required: --mask"),
    "no image": (cells(mask="masks/a.png"), "required: --image"),
    "no file": (cells(**GOOD | {"image": "photos/none.png"}), "photos/none.png' does not exist"),
    "unknown": (cells(**GOOD, promt="a"), "column 'promt' is none of angle, "),
    "semicolons": (b"image;mask\nphotos/a.png;masks/a.png\n", "column 'image;mask' is none of "),
    "out": (cells(**GOOD, out="elsewhere"), "column 'out' is none of "),
    "twice": (b"image,mask,noise-std,noise_std\na,b,1,1\n", "has the column 'noise_std' twice"),
    "NaN": (cells(**GOOD, noise_std="nan"), "nan is not a finite number"),
    "number": (cells(**GOOD, samples="many"), "invalid integer value: 'many'"),
    "flag": (cells(**GOOD, invert_mask="maybe"), "invert_mask is 'maybe'; it must be true or false"),
    "command": (cells(**GOOD, command="batch"), "command 'batch' is none of inpaint, deblur, upscale, sample, degrade"),
    "option": (cells(**GOOD, posterior="photos/a.png"), "inpaint has no --posterior"),
    "names": (b"image,mask,name\na,b,x\na,b,X\n", "name 'x' is given to more than one item"),
    "cells": (b"image,mask\na,b,c\n", "line 2 has 3 cells and the header 2"),
    "quote": (b'image,mask\n"a,b\n', "line 2: "),
    "Latin-1": (b"image,mask\n\xe4,b\n", "is no UTF-8 text"),
    "UTF-16": ("image,mask\na,b\n".encode("utf-16"), "is no UTF-8 text"),
    "NUL": (cells(**GOOD | {"mask": "\0"}), ""),
} | {
    f"name {name!r}": (cells(**GOOD, name=name), "does not suit a folder")
    for name in ("..", "../a", "/a", "a/b", "a\\b", ".a", "a.", "-a", "a\tb", "x" * 201)
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_table_without_a_usable_row_ends_in_one_line(kind, pictures, tmp_path, capsys):
    content, message = BAD_TABLES[kind]
    table = pictures / "bad.csv"
    table.write_bytes(content)
    assert main(["batch", str(table), "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vipaint: error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [("nowhere", "is no address"), ("host:99999999", "is no address"), ("127.0.0.1:1", "nothing answers there")],
)
def test_a_wrong_cluster_ends_in_one_line(address, message, pictures, tmp_path, capsys):
    table = pictures / "good.csv"
    table.write_bytes(cells(**GOOD))
    assert main(["batch", str(table), "--out", str(tmp_path / "out"), f"--ray={address}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--ray '{address}'" in line
    assert message in line
    assert not (tmp_path / "out").exists()


def items_of(content, folder, *options):
    (folder / "table.csv").write_bytes(content)
    return read_items(build_parser().parse_args(["batch", str(folder / "table.csv"), "--out", "out", *options]))


COLUMNS = sorted({"name", "command", "other"}.union(*item_commands().values()))
WORDS = st.text() | st.sampled_from(
    ["photos/a.png", "masks/a.png", "a", "1", "true", "sample", "nan", "--", "-1", "' "]
)


@settings(max_examples=100)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, WORDS)), max_size=3))
def test_rows_become_command_lines_that_parse_or_are_refused_with_a_reason(pictures, rows):
    file = io.StringIO()
    table = csv.DictWriter(file, sorted({name for row in rows for name in row}))
    table.writeheader()
    table.writerows(rows)
    try:
        items = items_of(file.getvalue().encode("utf-8", "replace"), pictures)
    except InputError:
        return
    assert len({item.name.casefold() for item in items}) == len(items)
    for item in items:
        assert bool(item.arguments) != bool(item.refusal)
        if item.arguments:
            assert build_parser().parse_args(item.arguments).out.endswith(f"/out/{item.name}")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_are_refused(pictures, content):
    with pytest.raises(InputError):
        items_of(content, pictures)


def test_a_row_is_a_command_line_with_paths_beside_the_table(pictures):
    rows = [
        "image,mask,noise-std,invert_mask,set,command,posterior,name",
        "photos/a.png,masks/a.png,0.1,yes,\"eta=0.5 'a=b c'\",,,",
        "photos/a.png,masks/a.png,,no,,,,",
        "photos/b.png,,,,,sample,masks/a.png masks/b.png,last",
    ]
    items = items_of("\ufeff".encode() + "\r\n".join(rows).encode(), pictures, "--overwrite", "--", "--seed", "3")
    assert [item.name for item in items] == ["a", "a-2", "last"]
    image, mask = (f"={pictures}/{kind}/a.png" for kind in ("photos", "masks"))
    first = ["inpaint", "--seed", "3", f"--image{image}", f"--mask{mask}", "--noise-std=0.1", "--invert-mask"]
    out = items[0].arguments[-2]
    assert list(items[0].arguments) == [*first, "--set=eta=0.5", "--set=a=b c", out, "--overwrite"]
    assert out.startswith("--out=/")
    assert "--invert-mask" not in items[1].arguments
    posteriors = ["--posterior", f"{pictures}/masks/a.png", f"{pictures}/masks/b.png"]
    assert list(items[2].arguments)[3:7] == [f"--image={pictures}/photos/b.png", *posteriors]
    assert not any(item.refusal for item in items)


def test_a_folder_gives_an_item_a_picture_and_one_without_mask_is_refused(pictures, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "c d.png", ".hidden.png"):
        save_image(folder / name, scene()) if name.endswith("png") else (folder / name).write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    command = ["batch", str(folder), "--masks", str(pictures / "masks"), "--out", "out"]
    items = {item.name: item.refusal for item in read_items(build_parser().parse_args(command))}
    missing = {name: f"{name}.png: --mask '{pictures}/masks/{name}.png' does not exist" for name in ("c d", ".hidden")}
    assert items == {"a": "", "a-2": "", "c d": missing["c d"], "hidden": missing[".hidden"]}


@pytest.mark.parametrize("option", ["--out", "--ou=x", "--overwrite"])
def test_options_of_the_batch_are_not_those_of_items(option, pictures):
    with pytest.raises(InputError, match="are options of the batch"):
        items_of(cells(**GOOD), pictures, "--", option)
