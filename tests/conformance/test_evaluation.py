"""What every evaluation must do: reward a perfect encoder, give chance to noise, ignore order, fit the report."""

import hashlib
import random

import pytest
import torch

from optical_scale.batch import TokenStates
from optical_scale.evaluation.bitext_retrieval import evaluate_bitext
from optical_scale.evaluation.entity_retrieval import evaluate_entities
from optical_scale.evaluation.grounding import RECALL, evaluate_grounding
from optical_scale.evaluation.image_text import evaluate_image_text
from optical_scale.evaluation.report import read_report, terminal_table, write_report
from optical_scale.evaluation.schema import Report, ReportedResult, Stage
from optical_scale.records import Box, Caption, CaptionedImage, Phrase, TextPair
from optical_scale.runtime.world import World

MEANINGS = [f"m{i}" for i in range(80)]
WORLD = World()


def meaning_encoder(salt):
    """Reads the meaning behind the last colon; each side with its own ``salt`` knows nothing of the other."""

    def encode_batch(items):
        vectors = []
        for item in items:
            text = item.decode() if isinstance(item, bytes) else item
            digest = hashlib.blake2b(f"{salt}/{text.split(':')[-1]}".encode(), digest_size=7).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
            vectors.append(torch.randn(4, 24, generator=generator))
        ones_BT = torch.ones(len(items), 4, dtype=torch.bool)
        return TokenStates(torch.stack(vectors), ones_BT, ones_BT)

    return encode_batch


def bitext(query_side, document_side, order):
    pairs = {l: [TextPair(f"{l}{m}", l, f"en:{m}", f"{l}:{m}") for m in order] for l in ("sw", "hi")}
    return evaluate_bitext(pairs, query_side, document_side, batch_size=16, world=WORLD)


def image_text(query_side, document_side, order):
    images = [
        CaptionedImage(m, m.encode(), "jpg", 8, 8, (Caption("en", f"en:{m}"), Caption("sw", f"sw:{m}"))) for m in order
    ]
    return evaluate_image_text(images, query_side, document_side, batch_size=16, world=WORLD)


def phrases(evaluate, query_side, document_side, order):
    """Character t of a caption is its token t, and means quarter t of its image."""
    phrases = tuple(Phrase(str(t), f"kind{t % 2}", t, t + 1) for t in range(4))
    quarters = {str(t): (Box(t % 2 * 4, t // 2 * 4, t % 2 * 4 + 4, t // 2 * 4 + 4),) for t in range(4)}
    images = [
        CaptionedImage(
            m, m.encode(), "jpg", 8, 8, tuple(Caption(l, f"{l}..:{m}", phrases) for l in ("en", "sw")), quarters
        )
        for m in order
    ]
    spans = [(t, t + 1) for t in range(4)]
    return evaluate(images, query_side, lambda texts: [spans for _ in texts], document_side, batch_size=16, world=WORLD)


def grounding(*arguments):
    return phrases(evaluate_grounding, *arguments)


def entities(*arguments):
    return phrases(evaluate_entities, *arguments)


every_evaluation = pytest.mark.parametrize("evaluate", [bitext, image_text, grounding, entities])


@every_evaluation
def test_a_perfect_encoder_scores_one(evaluate):
    for result in evaluate(meaning_encoder(0), meaning_encoder(0), MEANINGS):
        assert set(result.metrics.values()) == {1.0}, result


@every_evaluation
def test_random_vectors_score_near_chance(evaluate):
    runs = [evaluate(meaning_encoder(f"q{i}"), meaning_encoder(f"d{i}"), MEANINGS) for i in range(4)]
    for rows in zip(*runs, strict=True):
        for metric, chance in rows[0].chance.items():
            if metric == RECALL:
                continue  # its level is that of a box drawn at random, and plans prefer small ones
            mean = sum(row.metrics[metric] for row in rows) / len(rows)
            assert mean == pytest.approx(chance, abs=0.05), (rows[0].direction, rows[0].mode, metric)


@every_evaluation
def test_the_order_of_documents_is_irrelevant(evaluate):
    shuffled = random.Random(0).sample(MEANINGS, len(MEANINGS))
    first, second = (evaluate(meaning_encoder("q"), meaning_encoder("d"), order) for order in (MEANINGS, shuffled))
    for one, other in zip(first, second, strict=True):
        assert one.metrics == other.metrics
        assert {name: values.tolist() for name, values in one.per_query.items()} == {
            name: values.tolist() for name, values in other.per_query.items()
        }


@every_evaluation
def test_results_fit_the_report(evaluate, tmp_path):
    results = evaluate(meaning_encoder(0), meaning_encoder(0), MEANINGS)
    report = Report(title="t", stages=(Stage(name="only", results=tuple(map(ReportedResult.of, results))),))
    write_report(tmp_path, report)
    assert read_report(tmp_path / "report.json") == report
    assert "1.000" in terminal_table(report)
