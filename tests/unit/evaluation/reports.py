"""A small but complete report."""

import base64
import io

import numpy as np
from PIL import Image

from optical_scale.evaluation.language_gap import LanguageGroups, language_gap
from optical_scale.evaluation.results import RetrievalResult, summarise
from optical_scale.evaluation.schema import (
    Alignment,
    CurvePoint,
    Groups,
    LossPoint,
    PictureAlignment,
    Report,
    ReportedGap,
    ReportedResult,
    Stage,
)

GROUPS = LanguageGroups(("de",), ("hi",))


def results(quality: float, seed: int) -> list[RetrievalResult]:
    rng = np.random.default_rng(seed)
    found = []
    for language, share in (("de", quality), ("hi", quality / 2)):
        drawn = np.where(rng.random(60) < share, 1, rng.integers(1, 61, size=60))
        ranks = [np.array([rank]) for rank in drawn]
        found.append(summarise("bitext", language, "dense", "text_to_text", ranks, 60, (1, 10)))
    return found


def picture() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), "red").save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def full_report() -> Report:
    by_stage = {"untrained": results(0.0, 0), "distilled": results(0.8, 1)}
    return Report(
        title="A <small> run & more",
        config={"student": "tiny", "steps": 100},
        stages=tuple(Stage(name=n, results=tuple(map(ReportedResult.of, rows))) for n, rows in by_stage.items()),
        training_pairs={"hi": 800, "de": 12_000},
        groups=Groups(high=GROUPS.high, low=GROUPS.low),
        gaps=tuple(
            ReportedGap.of(language_gap({r.language: r.reciprocal_ranks for r in rows}, GROUPS), name, rows[0], "MRR")
            for name, rows in by_stage.items()
        ),
        learning_curve=tuple(
            CurvePoint(step=step, language=language, metric="MRR", value=step / 200)
            for language in ("de", "hi")
            for step in (0, 50, 100)
        ),
        loss_curve=tuple(LossPoint(step=step, value=1 / (1 + step)) for step in range(0, 101, 10)),
        alignments=(
            Alignment(
                language="hi",
                source_tokens=("the", "cat"),
                target_tokens=("बिल्ली", "<unk>", "है"),
                plan=((0.1, 0.1, 0.3), (0.5, 0.0, 0.0)),
            ),
            Alignment(
                language="de",
                source_tokens=("a", "</script>"),
                target_tokens=("eine", "Katze"),
                plan=((0.5, 0.0), (0.125, 0.375)),
            ),
            Alignment(language="de", source_tokens=("dog",), target_tokens=("Hund",), plan=((1.0,),)),
        ),
        pictures=(
            PictureAlignment(
                language="de",
                tokens=("rot", "blau"),
                picture=picture(),
                rows=1,
                columns=2,
                plan=((0.4, 0.1), (0.0, 0.5)),
            ),
        ),
        timings={"training": 12.5},
    )
