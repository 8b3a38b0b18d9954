"""Bitext and captioned images in one run, from configs/distill/two_towers.yaml made tiny."""

import io
import json
import shutil

import pytest
import yaml
from PIL import Image
from transformers import AutoConfig, AutoModel

from optical_scale.config.export import ExportConfig
from optical_scale.config.loading import load
from optical_scale.config.metrics import OF_TOWERS, logged
from optical_scale.config.run import TrainConfig
from optical_scale.recipes.export import export
from optical_scale.records import Box, Caption, CaptionedImage, Phrase
from optical_scale.shards.writer import write_shards
from optical_scale.stream.mixing import Mixture, Portion
from tests.support.corpus import sentences, word
from tests.support.processes import ROOT, TRAIN, finish, start
from tests.support.runs import Workshop, names_logged, steps_of, tiny_xlmr

pytestmark = pytest.mark.distributed

TOLERANCE = 1e-4
STEPS = 10
IMAGES = 22
VIT = {
    "model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "intermediate_size": 48, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def images():
    """Pictures of one colour, described in English and German; one in three has a phrase with a box."""
    for number, meanings in enumerate(sentences(IMAGES)):
        file = io.BytesIO()
        Image.new("RGB", (20, 12), (11 * number, 5 * number, 255 - 11 * number)).save(file, "PNG")
        phrases = (Phrase("1", "other", 0, len(word("en", meanings[0]))),) if number % 3 == 0 else ()
        captions = tuple(Caption(tag, " ".join(word(tag, m) for m in meanings), phrases) for tag in ("en", "de"))
        box = Box(0, 0, 10, 6 + number % 6)
        yield CaptionedImage(f"image-{number:02d}", file.getvalue(), "png", 20, 12, captions, {"1": (box,)})


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    import torch

    torch.manual_seed(1)
    workshop = Workshop(tmp_path_factory.mktemp("towers"), pairs=25)  # 50 pairs: 7 steps of 8 an epoch, the last short
    base = workshop.folder / "base"
    AutoModel.from_config(AutoConfig.for_model(**tiny_xlmr(workshop.pieces))).save_pretrained(base)
    for path in (workshop.folder / "tokenizer").iterdir():
        shutil.copy(path, base)
    write_shards(images(), workshop.folder / "images", 10)  # shards of 10, 10 and 2
    return workshop


def write(workshop, run, steps=STEPS, stage=2, only=""):
    values = yaml.safe_load((ROOT / "configs" / "distill" / "two_towers.yaml").read_text())
    base = str(workshop.folder / "base")
    text = {"kind": "text", "pretrained": base, "max_tokens": 24, "dropout": 0.0}
    pictures = {"sources": [{"shards": str(workshop.folder / "images")}], "pairs_per_step": 4, "micro_batch_pairs": 2}
    engine = {"zero_stage": stage, "persistent_parameters": 100}
    values |= {
        "run": str(workshop.folder / run),
        "teacher": {"backbone": text, "engine": {"zero_stage": 3 if stage == 3 else 0}},
        "student": {"backbone": text, "vision": {"kind": "vision", "architecture": VIT}, "engine": engine},
        "optimization": {"steps": steps, "learning_rate": 0.005, "warmup": 0.0, "decay": "constant"},
        "logging": {"every": 1},
        "evaluation": [{"name": "image_text", "shards": str(workshop.folder / "images")}],
    }
    values["stream"] |= {
        "sources": [{"shards": str(workshop.shards)}],
        "pairs_per_step": 8,
        "micro_batch_pairs": 4,
        "images": values["stream"]["images"] | pictures,
    }
    if only:
        del values["stream"]["images"]
        vision = values["student"].pop("vision")
        del values["evaluation"]
    if only == "images":
        values["student"]["backbone"] = vision
        values["stream"] = pictures
    path = workshop.folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def curve(run):
    return [values for _, values in sorted(steps_of(run, "loss", "gradient_norm").items())]


def turns():
    """Whose step each is: one with images for two with bitext, dealt as the languages of a mixture are."""
    mixture = Mixture([Portion(name, name, 1) for name in ("pairs", "images")], weights={"pairs": 1, "images": 0.5})
    return [mixture.portions[mixture.draw(step).source].name for step in range(STEPS)]


@pytest.fixture(scope="module")
def both(workshop):
    """On two processes at stage 3, from start to end."""
    finish(start([*TRAIN, write(workshop, "both", stage=3)], 2))
    return workshop.folder / "both"


def test_each_tower_learns_as_in_a_run_of_its_own(workshop, both):
    assert turns().count("images") == 3
    for only in ("pairs", "images"):
        own = [values for values, turn in zip(curve(both), turns(), strict=True) if turn == only]
        finish(start([*TRAIN, write(workshop, f"{only}_alone", steps=len(own), stage=0, only=only)]))
        assert own == [pytest.approx(values, rel=TOLERANCE) for values in curve(workshop.folder / f"{only}_alone")]
    lines = [json.loads(line) for line in (both / "metrics.jsonl").read_text().splitlines()]
    later = [line for line in lines if line["event"] == "step"][turns().index("images") + 1 :]
    assert ["images" if "loss_images" in line else "pairs" for line in later] == turns()[-len(later) :]
    config = load(TrainConfig, both / "config.yaml")
    assert names_logged(both) <= set(logged(config.objective, towers=True))
    assert names_logged(both) >= set(OF_TOWERS)


def test_the_state_counts_both_and_other_ranks_continue(workshop, both):
    finish(start([*TRAIN, write(workshop, "cut", steps=4)], 2))
    finish(start([*TRAIN, write(workshop, "cut")]))
    cut = workshop.folder / "cut"
    assert curve(cut) == [pytest.approx(values, rel=TOLERANCE) for values in curve(both)]
    states = [json.loads((run / f"checkpoints/step_{STEPS:06d}/stream.json").read_text()) for run in (cut, both)]
    assert states[0] == states[1]
    strands = states[0]["strands"]
    assert {name: (strand["step"], strand["draws"]) for name, strand in strands.items()} == {
        "pairs": (7, 56),
        "images": (3, 12),
    }
    seen = json.loads((cut / f"checkpoints/step_{STEPS:06d}/train_state.json").read_text())["pairs"]
    assert seen == {"de": 28, "sw": 28, "en": 12}


def test_phrases_on_some_ranks_are_those_of_one(workshop):
    """Micro-batches of two images, a third of which has a phrase: some have none, on one rank or on both."""
    curves = []
    for processes in (1, 2):
        path = write(workshop, f"regions_{processes}", steps=6, only="images")
        values = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(values | {"objective": {"name": "region_alignment"}}))
        finish(start([*TRAIN, path], processes))
        curves.append(curve(workshop.folder / f"regions_{processes}"))
        shares = [
            share for (share,) in steps_of(workshop.folder / f"regions_{processes}", "pairs_with_phrases").values()
        ]
        assert 0 < sum(shares) / len(shares) < 1
    assert curves[0] == [pytest.approx(values, rel=TOLERANCE) for values in curves[1]]


def test_both_towers_are_measured_together_and_exported(both, tmp_path):
    results = json.loads((both / f"checkpoints/step_{STEPS:06d}/train_state.json").read_text())["results"]
    assert {result["language"] for result in results} == {"de", "en"}
    for tower, kind in (("text", "xlm-roberta"), ("vision", "vit")):
        report = export(ExportConfig(checkpoint=both, output=tmp_path / tower, tower=tower))
        assert json.loads((report.folder / "config.json").read_text())["model_type"] == kind
