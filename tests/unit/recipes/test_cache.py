import pytest
import torch
from safetensors.torch import load_file, save_file

from optical_scale.backbones.fresh import build_backbone
from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.cache import fingerprint
from tests.support.corpus import write_tokenizer
from tests.support.runs import tiny_xlmr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    build_backbone(tiny_xlmr(write_tokenizer(folder))).save_pretrained(folder)
    return folder


def of(folder, *, reads="passages", precision="fp32", **backbone):
    """The fingerprint of a teacher from ``folder``."""
    teacher = {
        "kind": "text",
        "pretrained": str(folder),
        "max_tokens": 24,
        "prefix": "q: ",
        "passage_prefix": "p: ",
    } | backbone
    values = {
        "run": "runs/a",
        "teacher": {"backbone": teacher, "reads": reads, "engine": {"precision": precision}},
        "student": {"backbone": {"kind": "text", "pretrained": str(folder)}},
        "stream": {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4},
        "objective": {"name": "mse"},
        "optimization": {"steps": 10},
    }
    return fingerprint(TrainConfig.model_validate(values))


CHANGES = {
    "length": ({"max_tokens": 20}, "tokenizer"),
    "prefix": ({"passage_prefix": "d: "}, "tokenizer"),
    "side": ({"reads": "queries"}, "tokenizer"),
    "layers": ({"layers": [0]}, "backbone"),
    "head": ({"head": 8}, "backbone"),
    "precision": ({"precision": "bf16"}, "arithmetic"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_states_changes_the_fingerprint(folder, change):
    settings, where = CHANGES[change]
    before, after = of(folder), of(folder, **settings)
    assert [name for name in before if before[name] != after[name]] == [where]


def test_what_does_not_change_them_leaves_it(folder):
    assert of(folder) == of(folder, prefix="other: ") == of(folder, mask_punctuation=True)


def test_other_weights_and_another_tokenizer_are_seen(folder, tmp_path):
    tokenizer = TextTokenizer.load(folder, 24)
    for name in ("weights", "tokenizer"):
        (tmp_path / name).mkdir()
        for file in folder.iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    first = min(weights)
    save_file(weights | {first: weights[first] + torch.ones(())}, tmp_path / "weights" / "model.safetensors")
    tokenizer.tokenizer.add_tokens(["habari"])
    tokenizer.save(tmp_path / "tokenizer")
    for name in ("weights", "tokenizer"):
        changed = of(tmp_path / name)
        assert [part for part, value in of(folder).items() if changed[part] != value] == [name]
