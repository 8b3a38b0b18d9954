import pytest
import torch

from optical_scale.backbones.encoder import Encoder
from optical_scale.backbones.fresh import build_backbone
from optical_scale.batch import PatchBatch, TokenBatch
from optical_scale.engine.teacher import TeacherEngine
from tests.support.runs import tiny_xlmr

PLAIN = {"zero_optimization": {"stage": 0}, "bf16": {"enabled": False}, "fp16": {"enabled": False}}


def teacher(backbone):
    module = Encoder(backbone, 32, None)
    encoded = []
    module.register_forward_hook(lambda _, __, output: encoded.append(len(output)))
    return TeacherEngine(module, PLAIN, torch.device("cpu")), encoded


def batch(*rows):
    longest = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[1] * (longest - len(row))] for row in rows])
    attention_BT = torch.tensor([[at < len(row) for at in range(longest)] for row in rows])
    return TokenBatch(ids_BT, attention_BT, attention_BT & (ids_BT > 3), torch.rand(ids_BT.shape))


TEXTS = [[0, 7, 8, 2], [0, 9, 2], [0, 7, 8, 2], [0, 9, 2], [0, 9, 2, 1], [0, 7, 8, 2]]


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return build_backbone(tiny_xlmr(16))


def test_equal_texts_are_encoded_once_and_all_rows_get_their_states(backbone):
    engine, encoded = teacher(backbone)
    texts = batch(*TEXTS)
    found = engine.encode(texts)
    assert encoded == [3]  # a text that ends in a token like padding is another one
    assert torch.equal(found.idf_BT, texts.idf_BT)
    assert torch.equal(found.mask_BT, texts.mask_BT)
    for row in range(len(texts)):
        alone = engine.encode(texts.map(lambda tensor_BT, row=row: tensor_BT[row : row + 1]))
        torch.testing.assert_close(found.x_BTD[row], alone.x_BTD[0], rtol=0, atol=1e-6)


def test_different_texts_and_images_are_encoded_as_they_are(backbone):
    engine, encoded = teacher(backbone)
    engine.encode(batch(*TEXTS[:2]))
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    images, counted = teacher(build_backbone(sizes | {"model_type": "vit", "image_size": 16, "patch_size": 8}))
    images.encode(PatchBatch(torch.zeros(2, 3, 16, 16)))
    assert (encoded, counted) == ([2], [2])
