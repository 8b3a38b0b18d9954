import json
import re

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional
from transformers import BertConfig, BertModel, BertTokenizerFast

from optical_scale.backbones.encoder import model_inputs, token_states
from optical_scale.backbones.folders import backbone_folder, network_config, read_contract
from optical_scale.backbones.pretrained import Pretrained
from optical_scale.config.backbones import TextBackbone
from optical_scale.errors import ConfigError
from optical_scale.recipes.build_inputs import text_tokenizer
from optical_scale.recipes.build_models import text_encoder
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
        config = TextBackbone(pretrained=tmp_path / folder, max_tokens=24, prefix="q: ", head=4)
        assert text_encoder(config, text_tokenizer(config)).width == 4


def test_bare_folder_has_no_contract(transformer):
    assert backbone_folder(transformer) == transformer
    assert read_contract(transformer) is None


def test_a_folder_that_is_not_there_is_named_without_talk_of_servers(tmp_path):
    with pytest.raises(
        ConfigError, match=r"nowhere is no model folder of transformers: it has no config\.json"
    ) as error:
        network_config(tmp_path / "nowhere", "text")
    assert "huggingface" not in str(error.value)


MARKED = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]", "the", "cat", "sits", "a", "dog"]


@pytest.fixture
def colbert(tmp_path):
    """A checkpoint as ColBERT's own code writes it: BertModel as ``bert``, the map as ``linear``."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    network = BertModel(BertConfig(vocab_size=len(MARKED), **sizes), add_pooling_layer=False)
    folder, linear_DH = tmp_path / "colbert", torch.randn(8, 32)
    network.config.save_pretrained(folder)
    tensors = {f"bert.{name}": value for name, value in network.state_dict().items()}
    save_file(tensors | {"linear.weight": linear_DH}, folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "vocab.txt").write_text("\n".join(MARKED))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(folder)
    settings = {"query_token_id": "[unused0]", "doc_token_id": "[unused1]", "doc_maxlen": 180, "mask_punctuation": True}
    (folder / "artifact.metadata").write_text(json.dumps(settings))
    return folder, network.eval(), linear_DH


@torch.no_grad()
def test_a_checkpoint_of_colbert_has_its_map_and_says_its_markers(colbert, caplog):
    folder, network, linear_DH = colbert
    told = {"prefix": "[unused0] ", "passage_prefix": "[unused1] ", "mask_punctuation": True}
    config = TextBackbone(pretrained=folder, **told)
    passages = text_tokenizer(config).for_passages()
    batch = passages(TEXTS)
    states = token_states(text_encoder(config, text_tokenizer(config)).eval()(**model_inputs(batch)), batch)
    assert batch.ids_BT[0].tolist() == [MARKED.index(p) for p in ["[CLS]", "[unused1]", "the", "cat", "sits", "[SEP]"]]
    expected = network(batch.ids_BT, attention_mask=batch.attention_BT.long()).last_hidden_state @ linear_DH.T
    torch.testing.assert_close(states.x_BTD, expected)
    assert "queries filled up by mask tokens" in caplog.text
    assert read_contract(folder).max_tokens == 180
    for missing, trained in (("prefix", "[unused0] "), ("passage_prefix", "[unused1] ")):
        other = TextBackbone(pretrained=folder, **{name: value for name, value in told.items() if name != missing})
        with pytest.raises(
            ConfigError, match=rf"backbone\.{missing}: .* was trained with {missing} '{re.escape(trained)}'"
        ):
            text_encoder(other, text_tokenizer(other))


def test_a_map_that_does_not_fit_or_is_not_colberts(colbert):
    folder, network, _ = colbert
    tensors = {f"bert.{name}": value for name, value in network.state_dict().items()}
    save_file(tensors | {"linear.weight": torch.ones(8, 31)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"linear.weight in .* has shape \(8, 31\); expected \(any, 32\)"):
        Pretrained(folder).projection()
    (folder / "artifact.metadata").unlink()
    assert Pretrained(folder).projection() is None


def test_pylates_markers_are_read(transformer, tmp_path, caplog):
    save(transformer, tmp_path / "st")
    path = tmp_path / "st" / "config_sentence_transformers.json"
    markers = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "document_length": 24}
    path.write_text(json.dumps(json.loads(path.read_text()) | markers | {"do_query_expansion": True}))
    contract = read_contract(tmp_path / "st")
    assert (contract.prefix, contract.passage_prefix, contract.max_tokens) == ("[Q] ", "[D] ", 24)
    assert "queries filled up by mask tokens" in caplog.text


def test_modules_that_are_not_one_linear_map(transformer, tmp_path):
    from sentence_transformers.sentence_transformer.modules import Dense

    save(transformer, tmp_path / "tanh", Dense(32, 8))
    with pytest.raises(ConfigError, match=r"1 Dense modules with .*Tanh; expected at most one linear map"):
        read_contract(tmp_path / "tanh")
    (tmp_path / "tanh" / "modules.json").write_text("{")
    with pytest.raises(ConfigError, match=r"modules.json cannot be read"):
        read_contract(tmp_path / "tanh")
