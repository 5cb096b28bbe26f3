"""``vipaint batch``: many pictures on processes that can be killed, with the same files as one after the other."""

import csv
import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from diffusers import DDPMScheduler, LDMPipeline
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.ops.conftest import scene, tiny_networks
from vipaint_ops.cli import batch as batch_module
from vipaint_ops.cli import kept, models
from vipaint_ops.cli.batch import run_items
from vipaint_ops.cli.items import Item
from vipaint_ops.cli.main import main
from vipaint_ops.cli.workers import LocalWorker, Outcome, run_item
from vipaint_ops.images.pictures import save_image
from vipaint_ops.priors.pipelines import load_pipeline

ROOT = Path(__file__).parents[2]
SMALL = ["--white", "fill", "--device", "cpu", "--steps", "2", "--samples", "1"]
QUICK = [*SMALL, "--preset", "published-v1", "--iterations", "0"]
DONE, FAILED, FAULT = (Outcome(status, "", [], 0.0, True) for status in (0, 2, 70))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with four pictures, their masks and a table."""
    folder = tmp_path_factory.mktemp("pictures")
    for kind in ("photos", "masks"):
        (folder / kind).mkdir()
    for name, width in (("a", 32), ("b", 24), ("c", 16), ("d", 40)):
        save_image(folder / "photos" / f"{name}.png", scene())
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :width] = 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def quick(embedded_file):
    return ["--", *QUICK, "--prior", str(embedded_file)]


def write_table(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
    return str(path)


def row(name, /, **cells):
    return {"image": f"photos/{name}.png", "mask": f"masks/{name}.png"} | cells


def manifest(out):
    return {line["name"]: line for line in map(json.loads, (out / "manifest.jsonl").read_text().splitlines())}


def digests(out):
    """SHA-256 of the results of every item. The record is without the times in it."""
    found = {}
    for path in sorted(out.glob("*/*")):
        content = path.read_bytes()
        if path.name == "metrics.json":
            content = json.dumps(json.loads(content) | {"seconds": 0}).encode()
        found[str(path.relative_to(out))] = hashlib.sha256(content).hexdigest()
    return found


def times(out):
    return {str(path): path.stat().st_mtime_ns for path in out.glob("*/*")}


class Inline:
    """A worker in this process."""

    def start(self):
        return resolved(os.getpid())

    def submit(self, arguments):
        return resolved(run_item(arguments))

    def stop(self):
        pass

    join = stop


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(batch_module, "_workers", lambda options: [Inline()])


def resolved(result):
    """A future with a result, or with an exception for None."""
    future = Future()
    future.set_result(result) if result is not None else future.set_exception(RuntimeError("it ended"))
    return future


@pytest.fixture(scope="module")
def alone(pictures, quick, tmp_path_factory):
    """The results of one worker, in this process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    masks = str(pictures / "masks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "_workers", lambda options: [Inline()])
        assert main(["batch", str(pictures / "photos"), "--masks", masks, "--out", str(out), *quick]) == 0
    return out


def test_two_workers_write_the_same_files_as_one(alone, pictures, quick, tmp_path):
    """From a table here, and from a folder there."""
    table = write_table(pictures / "table.csv", [row(name) for name in "dcba"])
    assert main(["batch", table, "--workers", "2", "--out", str(tmp_path / "out"), *quick]) == 0
    assert digests(tmp_path / "out") == digests(alone)
    assert list(manifest(tmp_path / "out")) == list("dcba")
    assert {path.name for path in alone.iterdir()} == {*"abcd", "manifest.jsonl"}
    for name, line in manifest(alone).items():
        assert (line["status"], line["attempts"]) == ("done", 1)
        assert set(line["files"]) == {f"{name}/{path.name}" for path in (alone / name).iterdir()}


def test_an_item_is_the_command_line_of_its_row(alone, pictures, quick, tmp_path):
    command = ["inpaint", "--image", str(pictures / "photos/b.png"), "--mask", str(pictures / "masks/b.png")]
    assert main([*command, *quick[1:], "--out", str(tmp_path)]) == 0
    assert {f"b/{path.name}" for path in tmp_path.iterdir()} == {name for name in digests(alone) if name[0] == "b"}
    assert (tmp_path / "sample_00.png").read_bytes() == (alone / "b" / "sample_00.png").read_bytes()


def test_finished_items_stay_and_changed_ones_are_refused_until_they_may_be_replaced(
    alone, pictures, quick, inline, tmp_path, capsys
):
    out = tmp_path / "out"
    rows = [row("a"), row("b", seed=1), row("c", image="photos/absent.png"), row("d", mask="photos/d.png")]
    table = write_table(pictures / "other.csv", rows)
    command = ["batch", table, "--out", str(out)]
    subprocess.run(["cp", "-rp", str(alone), str(out)], check=True)
    before = times(out)
    assert main([*command, *quick]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"1 of 4 items are done; see {out / 'manifest.jsonl'}\n"
    reasons = dict(line.removeprefix("vipaint: failed: ").split(": ", 1) for line in captured.err.splitlines())
    absent = str(pictures / "photos/absent.png")
    assert reasons == {
        "b": "its folder has results of other settings (seed 0, now 1): give --overwrite, or another name",
        "absent": f"line 4: --image {absent!r} does not exist",
        "d": "its folder has results of other settings (another file for --mask): give --overwrite, or another name",
    }
    assert times(out) == before
    assert {name: line["attempts"] for name, line in manifest(out).items()} == {"a": 0, "b": 0, "absent": 0, "d": 0}

    assert main([*command, "--overwrite", *quick]) == 1
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "vipaint: failed: d: " in line)
    assert "mask" in line
    after = times(out)
    assert {path for path in before if before[path] != after[path]} == {str(path) for path in (out / "b").iterdir()}
    assert manifest(out)["b"]["attempts"] == 1
    assert manifest(out)["d"]["reason"] in line


def test_a_fit_is_sampled_by_several_items(alone, pictures, quick, inline, tmp_path):
    posterior = str(alone / "a" / "posterior.safetensors")
    rows = [row("a", command="sample", posterior=posterior, first=first, samples=1, name=first) for first in (0, 1)]
    rows.append(rows[0] | {"samples": 2, "name": "both"})
    table = write_table(pictures / "fit.csv", rows)
    options = [*SMALL, "--batch-size", "1", *quick[-2:]]
    assert main(["batch", table, "--out", str(tmp_path / "out"), "--", *options]) == 0
    parts = [path.read_bytes() for first in "01" for path in (tmp_path / "out" / first).glob("sample_*.png")]
    assert parts == [path.read_bytes() for path in sorted((tmp_path / "out" / "both").glob("sample_*.png"))]


def test_every_command_that_writes_a_folder_finds_its_results_again(pictures, quick, inline, tmp_path):
    model = {"image": "photos/a.png", "prior": quick[-1], "preset": "published-v1", "iterations": 0}
    rows = [
        row("a", prior=quick[-1], method="ding", set="known_std=0.5 'refreshes=1'", no_plots="yes", white="known"),
        model | {"name": "sharp", "command": "deblur", "kernel-size": 9, "no_plots": "FALSE"},
        model | {"name": "large", "command": "upscale", "factor": 2},
        {"image": "photos/a.png", "name": "case", "command": "degrade", "factor": 2},
    ]
    rows[:3] = [cells | {"samples": 1, "steps": 2} for cells in rows[:3]]
    command = ["batch", write_table(pictures / "commands.csv", rows), "--out", str(tmp_path / "out")]
    for attempts in (1, 0):
        assert main(command) == 0
        assert {line["attempts"] for line in manifest(tmp_path / "out").values()} == {attempts}
    made = json.loads((tmp_path / "out" / "a" / "metrics.json").read_text())["run"]["options"]
    assert (made["set"], made["no_plots"]) == ([["known_std", 0.5], ["refreshes", 1]], True)
    assert manifest(tmp_path / "out")["a"]["files"] == ["a/sample_00.png", "a/metrics.json"]


def _heeds():
    """Ctrl-C counts, also where the tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Driver:
    """A batch of its own process, on twelve items. Like those of a terminal, its signals reach its workers, too."""

    def __init__(self, pictures, quick, out):
        rows = [row("abcd"[seed % 4], seed=seed, name=f"item {seed:02d}") for seed in range(12)]
        self.command = [sys.executable, "-m", "vipaint_ops.cli", "batch", write_table(pictures / "kill.csv", rows)]
        self.quick, self.out, self.process = quick, out, None

    def start(self, *options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [*self.command, "--out", str(self.out), *options, *self.quick]
        self.process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=_heeds, **pipes)

    def wait_for(self, count):
        """Wait until the manifest has a number of lines."""
        path = self.out / "manifest.jsonl"
        while not path.exists() or path.read_bytes().count(b"\n") < count:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def workers(self, title=b"spawn_main"):
        """Processes of the driver's session with a word in their title."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(folder.name)) == self.process.pid and title in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found)

    def end(self):
        out, err = self.process.communicate(timeout=120)
        return self.process.returncode, out.decode(), err.decode()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_killed_workers_and_a_killed_driver_lose_nothing_and_repeat_nothing(pictures, quick, tmp_path):
    driver = Driver(pictures, quick, tmp_path / "out")
    driver.start("--workers", "2")
    driver.wait_for(1)
    os.kill(driver.workers()[0], signal.SIGKILL)
    driver.wait_for(3)
    workers = driver.workers()
    os.kill(driver.process.pid, signal.SIGKILL)
    driver.end()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker has outlived its driver"
        time.sleep(0.05)
    finished = {name for name, line in manifest(driver.out).items() if line["status"] == "done"}
    assert 3 <= len(finished) < 12
    left = list(driver.out.glob("*/.vipaint*"))
    before = {path: when for path, when in times(driver.out).items() if Path(path).parent.name in finished}

    driver.start("--workers", "2")
    driver.wait_for(len(finished) + 1)
    while any(path.exists() for path in left):  # until the items of the killed run are run again
        assert driver.process.poll() is None
        time.sleep(0.01)
    os.killpg(driver.process.pid, signal.SIGINT)
    status, out, err = driver.end()
    assert (status, out) == (130, "")
    assert err.startswith("vipaint: interrupted: ")
    assert err.endswith(" of 12 items are done; run the same command again to go on\n")
    assert not list(driver.out.glob("*/.vipaint*"))

    driver.start()
    assert driver.end() == (0, f"12 of 12 items are done; see {driver.out / 'manifest.jsonl'}\n", "")
    assert not list(driver.out.glob("*/.vipaint*"))
    lines = manifest(driver.out)
    assert list(lines) == [f"item {seed:02d}" for seed in range(12)]
    assert {line["status"] for line in lines.values()} == {"done"}
    assert {lines[name]["attempts"] for name in finished} == {0}
    assert {path: when for path, when in times(driver.out).items() if path in before} == before
    assert {path.name for path in driver.out.iterdir()} == {*lines, "manifest.jsonl"}
    for line in lines.values():
        record = json.loads((driver.out / line["name"] / "metrics.json").read_text())
        assert record["seed"] == int(line["name"][-2:])
        for name, digest in record["files"].items():
            assert hashlib.sha256((driver.out / line["name"] / name).read_bytes()).hexdigest() == digest


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_workers_write_the_same_files_and_can_be_killed(alone, pictures, quick, tmp_path):
    driver = Driver(pictures, quick, tmp_path / "out")
    driver.start("--workers", "2", "--ray")
    driver.wait_for(1)
    while not driver.workers(b"ray::_Actor.run"):
        time.sleep(0.01)
    os.kill(driver.workers(b"ray::_Actor.run")[0], signal.SIGKILL)
    status, out, _ = driver.end()
    assert (status, out.splitlines(keepends=True)[-1]) == (
        0,
        f"12 of 12 items are done; see {driver.out / 'manifest.jsonl'}\n",
    )
    lines = manifest(driver.out)
    assert sorted(line["attempts"] for line in lines.values()) == [1] * 11 + [2]
    for path in (alone / "a").glob("*[!n]"):  # all but the record, which has the time of each stage
        assert (driver.out / "item 00" / path.name).read_bytes() == path.read_bytes()


def test_a_parquet_table_is_as_one_of_text(alone, pictures, quick, inline, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [row("a", seed=None, samples=1.0), row("b", seed=0.0, samples=None)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), pictures / "table.parquet")
    assert main(["batch", str(pictures / "table.parquet"), "--out", str(tmp_path / "out"), *quick]) == 0
    assert digests(tmp_path / "out") == {name: value for name, value in digests(alone).items() if name[0] in "ab"}


def test_a_worker_loads_a_model_once(pictures, inline, tmp_path, monkeypatch):
    denoiser, autoencoder = tiny_networks()
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    LDMPipeline(vqvae=autoencoder, unet=denoiser, scheduler=scheduler).save_pretrained(tmp_path / "model")
    loads = []
    monkeypatch.setattr(models, "load_pipeline", lambda *given: loads.append(given) or load_pipeline(*given))
    command = ["batch", write_table(pictures / "two.csv", [row("a"), row("b")]), "--out"]
    options = ["--", *QUICK, "--prior", str(tmp_path / "model")]
    assert main([*command, str(tmp_path / "each"), *options]) == 0
    assert len(loads) == 2
    monkeypatch.setattr(kept, "_kept", {})
    assert main([*command, str(tmp_path / "once"), *options]) == 0
    assert len(loads) == 3
    assert digests(tmp_path / "once") == digests(tmp_path / "each")


class Scripted:
    """A worker that meets what a script says, one entry a submitted item; None is its end."""

    def __init__(self, script, starts=True):
        self.script, self.starts, self.alive, self.ran = script, starts, False, []

    def start(self):
        self.alive = self.starts
        return resolved(os.getpid() if self.starts else None)

    def submit(self, arguments):
        assert self.alive
        self.ran.append(arguments)
        outcome = self.script.pop() if self.script else DONE
        self.alive = outcome is not None
        return resolved(outcome)

    def stop(self):
        self.alive = False

    def join(self):
        assert not self.alive


@given(
    st.lists(st.lists(st.sampled_from([DONE, FAILED, FAULT, None]), max_size=12), min_size=1, max_size=4),
    st.integers(0, 12),
    st.integers(0, 3),
)
def test_every_item_gets_one_outcome_whatever_happens_to_workers(scripts, count, retries):
    """After at most ``retries`` further attempts, and one that has come to an end does not run again."""
    items = [Item(str(number), (str(number),)) for number in range(count)]
    workers, seen = [Scripted(list(script)) for script in scripts], {}

    def report(item, outcome, attempts):
        assert item.name not in seen
        seen[item.name] = outcome.status, attempts

    run_items(items, workers, retries, report)
    assert seen.keys() == {item.name for item in items}
    ran = [name for worker in workers for (name,) in worker.ran]
    for name, (status, attempts) in seen.items():
        assert ran.count(name) == attempts <= retries + 1
        assert status in (0, 2) or attempts == retries + 1


def test_a_process_that_ends_between_two_items_is_a_failed_attempt():
    def submit(*_):
        raise BrokenProcessPool("it ended")

    worker = LocalWorker(1, "")
    worker._pool = SimpleNamespace(submit=submit)
    assert isinstance(worker.submit(()).exception(), BrokenProcessPool)


def test_workers_that_cannot_start_are_left_out_or_end_the_batch():
    items, seen = [Item(name, (name,)) for name in "ab"], []
    run_items(items, [Scripted([], starts=False), Scripted([])], 0, lambda item, *_: seen.append(item.name))
    assert seen == ["a", "b"]
    with pytest.raises(ValueError, match="no worker can start: it ended"):
        run_items(items, [Scripted([], starts=False)], 0, lambda *_: None)
