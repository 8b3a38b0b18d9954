import pytest
import torch
from safetensors.torch import load_file, save_file

from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.pretrained import load_backbone
from optical_scale.backbones.readout import VISION, token_vectors
from optical_scale.backbones.skeleton import skeleton, stream_weights, tied_names

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = torch.tensor([[0, 7, 9, 2], [0, 5, 2, 1]])
TEXTS = {"input_ids": IDS, "attention_mask": (IDS != 1).long()}
IMAGES = {"pixel_values": torch.rand(2, 3, 16, 16)}
INPUTS = dict.fromkeys(("xlm-roberta", "xlm-roberta-xl", "bert", "deberta-v2", "modernbert", "clip_text_model"), TEXTS)
INPUTS |= dict.fromkeys(VISION, IMAGES)
EXTRA = {
    "xlm-roberta": {"vocab_size": 30, "pad_token_id": 1, "max_position_embeddings": 12},
    "xlm-roberta-xl": {"vocab_size": 30, "pad_token_id": 1, "max_position_embeddings": 12},
    "bert": {"vocab_size": 30},
    "deberta-v2": {"vocab_size": 30, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4},
    "modernbert": {"vocab_size": 30, "pad_token_id": 1, "global_attn_every_n_layers": 1},
    "clip_text_model": {"vocab_size": 30, "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 2},
} | {name: {"image_size": 16, "patch_size": 8} for name in VISION}
# torch's attention takes another path where its weights need no gradient.
EXACT = {"siglip_vision_model": 1e-6}


@pytest.fixture(params=INPUTS)
def saved(request, tmp_path):
    model = build_backbone({"model_type": request.param, **SIZES, **EXTRA[request.param]})
    model.config.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    return request.param, tmp_path


@torch.no_grad()
def test_streamed_forward_equals_the_loaded_model(saved):
    kind, folder = saved
    model = skeleton(folder)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    stream_weights(model, dict.fromkeys(load_file(folder / "model.safetensors"), folder / "model.safetensors"))
    expected = token_vectors(load_backbone(folder).eval(), **INPUTS[kind])
    for _ in range(2):
        torch.testing.assert_close(token_vectors(model, **INPUTS[kind]), expected, rtol=0, atol=EXACT.get(kind, 0))
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@torch.no_grad()
def test_half_precision_files_compute_in_float32(saved):
    kind, folder = saved
    path = folder / "model.safetensors"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})
    model = skeleton(folder)
    stream_weights(model, dict.fromkeys(halves, path))
    found = token_vectors(model, **INPUTS[kind])
    assert found.dtype == torch.float32
    expected = token_vectors(load_backbone(folder).eval(), **INPUTS[kind])
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT.get(kind, 0))


@torch.no_grad()
def test_tied_weights_are_read_from_their_one_place(tmp_path):
    architecture = {
        "model_type": "t5",
        "vocab_size": 30,
        "d_model": 16,
        "d_ff": 24,
        "d_kv": 8,
        "num_layers": 1,
        "num_heads": 2,
    }
    from transformers import AutoConfig, T5EncoderModel

    model = T5EncoderModel(AutoConfig.for_model(**architecture)).eval()
    names = tied_names(model)
    assert names == {"encoder.embed_tokens.weight": "shared.weight"}
    model.save_pretrained(tmp_path)
    files = dict.fromkeys(load_file(tmp_path / "model.safetensors"), tmp_path / "model.safetensors")
    assert "encoder.embed_tokens.weight" not in files
    expected = model(input_ids=IDS).last_hidden_state
    empty = T5EncoderModel(model.config).eval()
    stream_weights(empty, files)
    assert torch.equal(empty(input_ids=IDS).last_hidden_state, expected)
