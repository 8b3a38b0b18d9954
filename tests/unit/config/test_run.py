import pytest
from pydantic import ValidationError

from optical_scale.config.run import EvaluateConfig, TokenizerConfig, TrainConfig

TEXT = {"kind": "text", "pretrained": "models/m"}
VISION = {"kind": "vision", "architecture": {"model_type": "vit"}}
SCRATCH = {"kind": "text", "architecture": {"model_type": "xlm-roberta"}, "tokenizer": "t"}


def train(**changes):
    values = {
        "run": "runs/a",
        "teacher": {"backbone": TEXT},
        "student": {"backbone": SCRATCH},
        "stream": {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4},
        "objective": {"name": "mse"},
        "optimization": {"steps": 10},
    }
    return TrainConfig.model_validate(values | changes)


def test_defaults_are_the_papers_and_the_safe_ones():
    config = train()
    assert config.student.engine.zero_stage == config.teacher.engine.zero_stage == 3
    assert config.checkpoints.keep == 2
    assert config.evaluation == []
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 4


def test_training_on_pairs_alone_needs_no_teacher():
    assert train(teacher=None).teacher is None


def test_a_vision_student_has_a_teacher_and_no_bitext():
    assert train(student={"backbone": VISION}).student.backbone.kind == "vision"
    with pytest.raises(ValidationError, match="a vision student reads only the image side"):
        train(student={"backbone": VISION}, teacher=None)
    with pytest.raises(ValidationError, match="cannot be evaluated on bitext"):
        train(student={"backbone": VISION}, evaluation=[{"name": "bitext", "shards": "v"}])


def test_a_teacher_reads_texts_unless_told_otherwise():
    assert train(teacher={"backbone": {"pretrained": "models/m"}}).teacher == train().teacher


PICTURES = {"kind": "vision", "pretrained": "models/clip"}


def test_a_teacher_of_images_has_a_student_of_captions():
    assert train(teacher={"backbone": PICTURES}).teaches_images
    assert not train().teaches_images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"backbone": VISION}}, "a teacher of images is for a student of captions"),
        ({"teacher": {"backbone": PICTURES, "cache": {"folder": "c"}}}, "`cache` stores states of texts"),
        ({"teacher": {"backbone": PICTURES, "engine": {"packed": True}}}, "images have none; leave it out"),
        ({"stream": {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4, "tokens": "t"}},
         r"stream.tokens is for bitext"),
    ],
)  # fmt: skip
def test_what_a_teacher_of_images_cannot_have(changes, message):
    with pytest.raises(ValidationError, match=message):
        train(**{"teacher": {"backbone": PICTURES}} | changes)


LATE = {"name": "contrastive", "dense": 0.0, "late_interaction": 1.0}


def with_negatives(**changes):
    return {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4, "negatives": 3} | changes


def test_negatives_belong_to_objectives_that_learn_from_them():
    assert not train(stream=with_negatives(), objective=LATE).needs_scores
    mixture = {"name": "mixture", "parts": [{"weight": 1, "objective": {"name": "score_kl"}}]}
    assert train(stream=with_negatives(), objective=mixture).needs_scores


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": with_negatives()}, "only contrastive, score_kl and margin_mse learn from them"),
        ({"stream": with_negatives(), "objective": {"name": "contrastive", "exchange": "turns"}}, "turns has none"),
        ({"stream": with_negatives(tokens="t"), "objective": LATE}, "ids of pairs without their negatives"),
        ({"stream": with_negatives(), "student": {"backbone": VISION}, "objective": LATE}, "a vision student has none"),
        ({"objective": {"name": "margin_mse"}}, "margin_mse compares the negatives of queries"),
        ({"objective": {"name": "contrastive", "dense": 0}}, "are both 0, so nothing is learned"),
        ({"objective": {"name": "contrastive", "exchange": "turns", "symmetric": False}}, "in both directions only"),
    ],
)
def test_negatives_without_use_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        train(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimization": {}}, "exactly one of `steps` and `epochs`"),
        ({"optimization": {"steps": 1, "epochs": 1.0}}, "exactly one of `steps` and `epochs`"),
        ({"optimization": {"steps": 1, "warmup": 1.5}}, "less than or equal to 1"),
        ({"optimization": {"steps": 1, "betas": [0.9]}}, "betas"),
        ({"student": {"backbone": {"kind": "text"}}}, "give either `pretrained`"),
        ({"student": {"backbone": TEXT | {"architecture": {"model_type": "bert"}}}}, "give either `pretrained`"),
        ({"student": {"backbone": SCRATCH | {"tokenizer": None}}}, "needs `tokenizer`"),
        ({"student": {"backbone": SCRATCH | {"architecture": {"hidden_size": 4}}}}, "must name `model_type`"),
        ({"student": {"backbone": SCRATCH | {"layers": [0]}}}, "set `pretrained`"),
        ({"student": {"backbone": TEXT | {"vocabulary": "match"}}}, "needs `tokenizer`"),
        ({"student": {"backbone": VISION | {"architecture": {}}}}, "must name `model_type`"),
        ({"objective": {"name": "wasserstein"}}, "wasserstein"),
        ({"objective": {"name": "mixture", "parts": []}}, "at least 1"),
        ({"stream": {"sources": [], "pairs_per_step": 8, "micro_batch_pairs": 4}}, "at least 1"),
        ({"teacher": {"backbone": TEXT, "engine": {"zero_stage": 2}}}, "zero_stage"),
        ({"sed": 1}, "Extra inputs"),
    ],
)
def test_impossible_runs_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        train(**changes)


def test_an_evaluation_has_a_stage_and_a_collection():
    values = {
        "output": "report",
        "teacher": TEXT,
        "stages": [{"name": "after", "student": TEXT}],
        "evaluation": [{"name": "bitext", "shards": "v"}],
    }
    assert EvaluateConfig.model_validate(values).epsilon == 0.02
    for field in ("stages", "evaluation"):
        with pytest.raises(ValidationError, match="at least 1"):
            EvaluateConfig.model_validate(values | {field: []})


def test_a_tokenizer_has_room_for_its_special_pieces():
    assert TokenizerConfig(output="t", shards=["s"]).vocabulary == 8000
    with pytest.raises(ValidationError, match="greater than or equal to 64"):
        TokenizerConfig(output="t", shards=["s"], vocabulary=10)


IMAGES = {"sources": [{"shards": "i"}], "pairs_per_step": 4, "micro_batch_pairs": 2}


def two_towers(student=None, stream=None, **changes):
    """The fields that make a run with two towers."""
    own = {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4, "images": IMAGES}
    return {
        "student": {"backbone": SCRATCH, "vision": VISION} | (student or {}),
        "stream": own | (stream or {}),
        **changes,
    }


def test_each_tower_is_a_run_of_its_own():
    config = train(**two_towers(stream={"faults": {"policy": "skip"}}))
    towers = config.towers()
    assert list(towers) == ["pairs", "images"]
    assert (towers["pairs"].student.vision, towers["pairs"].stream.images) == (None, None)
    assert towers["images"].student.backbone == config.student.vision
    images = towers["images"].stream
    assert (images.pairs_per_step, images.faults.policy, images.sources[0].shards) == (4, "skip", "i")
    assert towers["pairs"].towers() == {"pairs": towers["pairs"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stream": {"images": None}}, "set both or none"),
        ({"student": {"vision": None}}, "set both or none"),
        ({"teacher": None}, "set `teacher` for the captions"),
        ({"student": {"engine": {"zero_stage": 3, "offload_optimizer": "nvme", "nvme": "/d"}}}, "two towers cannot"),
        ({"student": {"backbone": {"kind": "vision", "architecture": {"model_type": "vit"}}}}, "beside a text"),
        ({"stream": {"images": {"sources": [{"shards": "s3://b/i"}], "pairs_per_step": 4, "micro_batch_pairs": 2}}},
         "a source is a URL"),
    ],
)  # fmt: skip
def test_towers_that_do_not_fit(changes, message):
    with pytest.raises(ValidationError, match=message):
        train(**two_towers(**changes))


REGIONS = {"name": "region_alignment"}
BOTH = {"name": "mixture", "parts": [{"weight": 1, "objective": {"name": o}} for o in ("mse", "region_alignment")]}


def test_regions_are_for_those_who_see_them():
    assert train(student={"backbone": VISION}, objective=REGIONS).learns_from_regions
    assert train(**two_towers(objective=BOTH)).learns_from_regions
    assert not train().learns_from_regions
    for objective in (REGIONS, BOTH):
        with pytest.raises(ValidationError, match="a text student sees none"):
            train(objective=objective)
    with pytest.raises(ValidationError, match="alone teaches the text tower nothing"):
        train(**two_towers(objective=REGIONS))


def layered(**layers):
    return {"name": "mixture", "parts": [{"weight": 1, "objective": {"name": "mse"}, "layers": layers}]}


def test_layers_are_asked_of_the_side_that_has_them():
    both = train(objective=layered(teacher=5, student=1))
    assert (both.teacher_layers, both.student_layers) == ([5], [1])
    alone = train(objective=layered(teacher=2, student=1), teacher=None)
    assert alone.student_layers == [1, 2]
    assert train().teacher_layers == train().student_layers == []


def test_a_cache_holds_the_inner_layers_that_are_compared_and_those_it_names():
    def cached(*layers):
        return {"backbone": TEXT, "cache": {"folder": "c", "layers": layers}}

    assert train(objective=layered(student=1), teacher=cached()).cached_layers == []
    assert train(objective=layered(teacher=1, student=1), teacher=cached()).cached_layers == [1]
    assert train(objective=layered(teacher=1, student=1), teacher=cached(4, 1, 3)).cached_layers == [1, 3, 4]
    assert train(objective=layered(teacher=1, student=1)).cached_layers == []


def test_what_a_side_reads_needs_two_prefixes():
    marked = TEXT | {"prefix": "q: ", "passage_prefix": "d: "}
    assert train(teacher={"backbone": marked, "reads": "queries"}).teacher.reads == "queries"
    assert train(student={"backbone": marked, "reads": "passages"}).student.reads == "passages"
    with pytest.raises(ValidationError, match=r"stream.negatives are passages, .* set teacher.reads to passages"):
        train(teacher={"backbone": marked, "reads": "queries"}, stream=with_negatives(), objective=LATE)
    for side, reads in (("teacher", "queries"), ("student", "passages")):
        for backbone in (TEXT, TEXT | {"prefix": "q: ", "passage_prefix": "q: "}):
            with pytest.raises(ValidationError, match=f"`reads: {reads}` changes nothing where .* have one prefix"):
                train(**{side: {"backbone": backbone, "reads": reads}})


@pytest.mark.parametrize(
    ("metric", "objective"),
    [
        ("margin", {"name": "mse"}),
        ("non_finite", {"name": "mse"}),
        ("effective_matches", {"name": "token_kl"}),
        ("mse_2", {"name": "mixture", "parts": [{"weight": 1, "objective": {"name": "mse"}}] * 2}),
    ],
)
def test_alarms_watch_what_is_logged(metric, objective):
    limit = {"metric": metric, "above": 1.0}
    assert train(alarms={"limits": [limit]}, objective=objective).alarms.limits[0].metric == metric


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("uniformityy", r"alarms.limits.0.metric: this run logs no 'uniformityy'; did you mean 'uniformity'\?"),
        ("marginal_error", "this run logs no 'marginal_error'"),
        ("mse", "this run logs no 'mse'; .*expected one of loss, "),
        ("loss_images", "this run logs no 'loss_images'"),
        ("skipped_decode_error", "this run logs no 'skipped_decode_error'"),
    ],
)
def test_an_alarm_on_something_else_is_refused(metric, words):
    with pytest.raises(ValidationError, match=words):
        train(alarms={"limits": [{"metric": metric, "above": 1.0}]})


def test_alarms_watch_towers_and_skipped_samples_where_there_are_any():
    limits = {"limits": [{"metric": "loss_images", "above": 9.0}]}
    assert train(**two_towers(alarms=limits)).alarms.limits[0].metric == "loss_images"
    stream = {"sources": [{"shards": "s"}], "pairs_per_step": 8, "micro_batch_pairs": 4, "faults": {"policy": "skip"}}
    limits = {"limits": [{"metric": "skipped_image", "above": 9.0}]}
    assert train(stream=stream, alarms=limits).alarms.limits[0].metric == "skipped_image"


def test_a_teacher_of_images_has_no_regions_to_teach():
    teacher = {"backbone": VISION | {"pretrained": "models/v", "architecture": None}}
    with pytest.raises(ValidationError, match="the teacher reads the images, so take this objective out"):
        train(teacher=teacher, objective=BOTH)
