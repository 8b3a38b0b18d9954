import re
from pathlib import Path

import yaml
from huggingface_hub import ModelCardData

from optical_scale.backbones.encoder import EncoderContract
from optical_scale.export.model_card import CardFacts, hub_name, model_card
from optical_scale.export.verify import Verification

FACTS = CardFacts(
    name="student",
    license="mit",
    languages=["pt-BR", "sw", "pt"],
    pairs={"sw": 1200, "pt-BR": 34000},
    steps=1500,
    teacher="minilm",
    base_model="owner/start",
    datasets=["owner/bitext"],
    objective="<P, C>",
    hyperparameters={"learning rate": 0.0005},
    corpora={"europarl": "cc0-1.0", "news": None},
    groups={"high": ["pt-BR"], "low": ["sw"]},
    gaps=[
        {
            "stage": "distilled",
            "evaluation": "bitext",
            "direction": "text_to_text",
            "mode": "dense",
            "metric": "MRR",
            "high_mean": 0.9,
            "low_mean": 0.8,
            "gap": 0.1,
            "interval": [0.05, 0.15],
        }
    ],
    results=[
        {
            "evaluation": "bitext",
            "language": "sw",
            "direction": "text_to_text",
            "mode": "dense",
            "metrics": {"R@1": 0.8125, "MRR": 0.875},
        }
    ],
)
TEXT = EncoderContract("text", 64, "query: ", {"in": 32, "out": 8, "bias": False})


def render(facts, contract):
    return model_card(facts, contract, 1_234_567, Verification(0.0, 1e-5))


def test_metadata_block_is_yaml_for_the_hub():
    _, block, _ = render(FACTS, TEXT).split("---\n", 2)
    values = yaml.safe_load(block)
    assert values["language"] == ["pt", "sw"]
    assert (values["license"], values["library_name"]) == ("mit", "sentence-transformers")
    assert values["pipeline_tag"] == "sentence-similarity"
    assert (values["base_model"], values["datasets"]) == ("owner/start", ["owner/bitext"])


def test_evaluations_are_read_back_by_the_hubs_own_library():
    _, block, _ = render(FACTS, TEXT).split("---\n", 2)
    first, second = ModelCardData(**yaml.safe_load(block)).eval_results
    assert (first.metric_type, first.metric_value, first.dataset_config) == ("r@1", 0.8125, "sw")
    assert second.metric_name == "MRR, dense, text to text"


def test_only_folders_of_the_hubs_cache_have_a_name_there(tmp_path):
    snapshot = tmp_path / "models--owner--some-model" / "snapshots" / "0123"
    assert hub_name(snapshot) == "owner/some-model"
    assert hub_name(tmp_path / "models--gpt2" / "snapshots" / "0123") is None
    assert hub_name(Path("models/minilm")) is None


def test_facts_are_told():
    card = render(FACTS, TEXT)
    for told in (
        "`minilm`",
        "1,234,567",
        "width 8",
        "| pt-BR | 34,000 |",
        "| sw | 1,200 |",
        "1,500",
        "Bitext, text to text, dense:",
        "| language | R@1 | MRR |",
        "| sw | 0.8125 | 0.8750 |",
        "- europarl: cc0-1.0",
        "- news: licence not stated",
        "- learning rate: 0.0005",
        "high-resource: pt-BR; low-resource: sw.",
        "| bitext, text to text, dense | MRR | distilled | 0.9000 | 0.8000 | 0.1000 (0.0500 to 0.1500) |",
    ):
        assert told in card
    assert card.index("34,000") < card.index("1,200")


def test_code_compiles_and_mentions_prefix_and_head_only_if_there_are_any():
    for contract in (TEXT, EncoderContract("text", 64), EncoderContract("vision")):
        card = render(FACTS, contract)
        for snippet in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
            compile(snippet, "card", "exec")
        assert ("query: " in card) == bool(contract.prefix)
        assert ("2_Dense" in card) == (contract.head is not None)


def test_code_tells_queries_from_passages_where_their_prefixes_differ():
    card = render(FACTS, EncoderContract("text", 64, "q: ", passage_prefix="d: "))
    assert 'model.encode_query(["a query"])' in card
    assert "`d: ` before passages" in card
    assert '"prefix": "q: ", "passage_prefix": "d: "' in card


def test_late_interaction_layout_names_its_libraries():
    card = model_card(FACTS, TEXT, 1, Verification(0.0, 1e-5), "pylate")
    assert 'models.ColBERT("student")' in card
    assert 'MultiVectorEncoder("student")' in card
    assert "1_Dense/model.safetensors" in card
    assert yaml.safe_load(card.split("---\n", 2)[1])["library_name"] == "PyLate"


def test_unknown_facts_are_left_out():
    card = render(CardFacts(name="s"), EncoderContract("vision"))
    assert "license" not in card
    assert "| language |" not in card
    assert "without a teacher" in card
