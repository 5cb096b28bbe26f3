"""The short form of ``make fuzz``: some of its prompts and interrupts, each as it promises."""

import pytest

from tests.fuzz.campaign import Results, interrupts, prompts, read
from tests.fuzz.host import Host
from tests.fuzz.report import failures, report
from tests.host.comfy_server import find_comfyui

SEED = 7


@pytest.fixture(scope="module")
def host(server, tmp_path_factory):
    """A ComfyUI of its own, with hostile files in its folders. (``server`` skips where there is no ComfyUI.)"""
    host = Host(find_comfyui(), tmp_path_factory.mktemp("fuzz") / "comfyui")
    yield host
    host.close()


@pytest.mark.parametrize(("campaign", "count"), [(prompts, 100), (interrupts, 10)], ids=["prompts", "interrupts"])
def test_nothing_unexpected_comes_of_random_prompts_and_interrupts(host, tmp_path, campaign, count):
    results = Results(tmp_path, campaign.__name__, SEED)
    campaign(host, results, count)
    assert len(read(results.path)) == count
    assert not failures(tmp_path), report(tmp_path)
    assert host.unchanged() == []
