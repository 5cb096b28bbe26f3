"""Nodes for the tests alone, loaded into the ComfyUI under test next to the pack."""

from tests.host.test_pack.basic import TestBadImage, TestConditioning, TestLatent, TestModelState, TestSaveTensor
from tests.host.test_pack.gradient import TestPlainGradient
from tests.host.test_pack.networks import TestTinyModel, TestTinyVAE
from tests.host.test_pack.pack_gradient import TestPackGradient
from tests.host.test_pack.reused_buffer import TestReusedWeightBuffer
from tests.host.test_pack.spoilt_model import TestSpoiltModel

_NODES = (
    TestBadImage,
    TestConditioning,
    TestLatent,
    TestModelState,
    TestPackGradient,
    TestPlainGradient,
    TestReusedWeightBuffer,
    TestSaveTensor,
    TestSpoiltModel,
    TestTinyModel,
    TestTinyVAE,
)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
