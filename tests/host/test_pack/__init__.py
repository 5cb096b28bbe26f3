"""Nodes for the tests alone, loaded into the ComfyUI under test next to the pack."""

from .basic import TestBadImage, TestConditioning, TestLatent, TestModelState, TestSaveTensor
from .counting import TestCountCells, TestCountedCells
from .gradient import TestPlainGradient
from .hooks import TestFingerprint, TestHooks, TestLinkedValue
from .memory import TestPackMemory
from .networks import TestTinyModel, TestTinyVAE, TestTinyVideoVAE
from .pack_gradient import TestPackCondition, TestPackGradient
from .reused_buffer import TestReusedWeightBuffer
from .seen import TestPackSeen
from .spoilt_model import TestSpoiltModel
from .tensors import TestSink, TestTensor

_NODES = (
    TestBadImage,
    TestConditioning,
    TestCountCells,
    TestCountedCells,
    TestFingerprint,
    TestHooks,
    TestLatent,
    TestLinkedValue,
    TestModelState,
    TestPackCondition,
    TestPackGradient,
    TestPackMemory,
    TestPackSeen,
    TestPlainGradient,
    TestReusedWeightBuffer,
    TestSaveTensor,
    TestSink,
    TestSpoiltModel,
    TestTensor,
    TestTinyModel,
    TestTinyVAE,
    TestTinyVideoVAE,
)
NODE_CLASS_MAPPINGS = {node.__name__: node for node in _NODES}
