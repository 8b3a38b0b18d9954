import json

import pytest
import torch
from torch.nn import functional

from optical_scale.backbones.encoder import model_inputs, token_states
from optical_scale.backbones.folders import backbone_folder, read_contract
from optical_scale.config.backbones import TextBackbone
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_models import text_encoder, text_tokenizer
from tests.support.corpus import write_tokenizer
from tests.support.runs import tiny_xlmr

library = pytest.importorskip("sentence_transformers", minversion="6.0")
TEXTS = ["the cat sits", "a dog"]


@pytest.fixture
def transformer(tmp_path):
    """A bare transformers folder with tokenizer."""
    from optical_scale.backbones.fresh import build_backbone

    pieces = write_tokenizer(tmp_path / "bare")
    build_backbone(tiny_xlmr(pieces)).save_pretrained(tmp_path / "bare")
    return tmp_path / "bare"


def save(transformer, folder, *modules, **options):
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    first = Transformer(str(transformer), max_seq_length=24)
    model = library.SentenceTransformer(modules=[first, Pooling(32, "mean"), *modules], device="cpu", **options)
    model.save_pretrained(str(folder))
    return model


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_sentence_transformers_folder_gives_its_own_embeddings(transformer, tmp_path, bias):
    from sentence_transformers.sentence_transformer.modules import Dense

    dense = Dense(32, 8, bias=bias, activation_function=torch.nn.Identity())
    model = save(transformer, tmp_path / "st", dense, prompts={"query": "ask: "}, default_prompt_name="query")
    contract = read_contract(tmp_path / "st")
    assert (contract.max_tokens, contract.prefix) == (24, "ask: ")
    assert contract.head == {"in": 32, "out": 8, "bias": bias}
    config = TextBackbone(pretrained=tmp_path / "st", max_tokens=24, prefix="ask: ")
    tokenize = text_tokenizer(config)
    batch = tokenize(TEXTS)
    states = token_states(text_encoder(config, tokenize).eval()(**model_inputs(batch)), batch)
    expected = functional.normalize(model.encode(TEXTS, convert_to_tensor=True))
    torch.testing.assert_close(states.pooled(), expected, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="trained with prefix 'ask: '"):
        text_encoder(TextBackbone(pretrained=tmp_path / "st", max_tokens=24), tokenize)


def test_transformer_in_a_subfolder_and_free_choices(transformer, tmp_path):
    save(transformer, tmp_path / "st", prompts={"query": "q: ", "document": "d: "})
    inner = tmp_path / "old" / "0_Transformer"
    transformer.rename(tmp_path / "moved")
    inner.parent.mkdir()
    (tmp_path / "moved").rename(inner)
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (tmp_path / "old" / "modules.json").write_text(json.dumps(modules))
    assert backbone_folder(tmp_path / "old") == inner
    assert read_contract(tmp_path / "st").prefix == ""
    for folder in ("st", "old"):
        config = TextBackbone(pretrained=tmp_path / folder, prefix="q: ", head=4, max_tokens=24)
        assert text_encoder(config, text_tokenizer(config)).width == 4


def test_bare_folder_has_no_contract(transformer):
    assert backbone_folder(transformer) == transformer
    assert read_contract(transformer) is None


def test_modules_that_are_not_one_linear_map(transformer, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense

    save(transformer, tmp_path / "tanh", Dense(32, 8))
    with pytest.raises(ConfigError, match=r"1 Dense modules with .*Tanh; expected at most one linear map"):
        read_contract(tmp_path / "tanh")
    (tmp_path / "tanh" / "modules.json").write_text("{")
    with pytest.raises(ConfigError, match=r"modules.json cannot be read"):
        read_contract(tmp_path / "tanh")
