"""`optical-scale evaluate` with both towers of CLIP, and its viewer of what is seen of an image."""

import base64
import io

import pytest
from PIL import Image

from optical_scale.config.run import EvaluateConfig
from optical_scale.errors import ConfigError
from optical_scale.recipes.evaluate import evaluate
from optical_scale.records import Caption, CaptionedImage
from optical_scale.shards.writer import write_shards
from tests.support.corpus import word
from tests.support.towers import POSITIONS, write_tower


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    write_tower(root / "clip", "clip")
    images = []
    for number in range(6):
        file = io.BytesIO()
        Image.new("RGB", (60, 30), (40 * number, 255 - 40 * number, 9)).save(file, "PNG")
        caption = Caption("en", f"{word('en', number)} {word('en', number + 6)}")
        images.append(CaptionedImage(f"image-{number}", file.getvalue(), "png", 60, 30, (caption,)))
    write_shards(images, root / "images", 10)
    text = {"kind": "text", "pretrained": root / "clip", "max_tokens": POSITIONS}
    return {
        "output": root / "report",
        "teacher": text,
        "stages": [{"name": "clip", "student": text}],
        "vision": {"kind": "vision", "pretrained": root / "clip"},
        "evaluation": [{"name": "image_text", "shards": root / "images"}],
        "alignments": 1,
    }


def test_the_report_shows_the_part_of_an_image_that_was_seen(config):
    report = evaluate(EvaluateConfig.model_validate(config))
    [picture] = report.pictures
    assert (picture.rows, picture.columns, len(picture.plan)) == (2, 2, len(picture.tokens))
    shown = Image.open(io.BytesIO(base64.b64decode(picture.picture.partition(",")[2])))
    assert shown.size == (16, 16)  # the middle of an image of 60 x 30
    assert {result.direction for result in report.stages[0].results} == {"text_to_image", "image_to_text"}


@pytest.mark.parametrize("name", ["grounding", "entity_retrieval"])
def test_boxes_need_the_whole_image(config, tmp_path, name):
    evaluation = [config["evaluation"][0] | {"name": name}]
    changed = EvaluateConfig.model_validate(config | {"evaluation": evaluation, "output": tmp_path / "other"})
    with pytest.raises(ConfigError, match=rf"evaluation: {name} compares boxes with patches, .* crops to 16 pixels"):
        evaluate(changed)
