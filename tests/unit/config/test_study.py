import pytest
from pydantic import ValidationError

from optical_scale.config.loading import load, to_yaml
from optical_scale.config.study import Study

AXES = {"corpus": {"news": {}, "bible": {}}, "objective": {"mse": {}, "ot": {}}, "seed": [0, 1]}


def study(**given):
    return Study.model_validate({"output": "o", "base": "b.yaml", "axes": AXES} | given)


def test_corpora_and_baselines_name_axes():
    assert study(corpora="corpus", baselines=[{"objective": "mse"}]).corpora == "corpus"
    assert study().corpora is None


def test_an_override_of_overrides_is_one_more_dotted_field(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(to_yaml({"output": "o", "base": "b", "axes": AXES, "overrides": {"teacher.cache.folder": "c"}}))
    changed = load(
        Study, path, ["overrides.teacher.backbone.pretrained=F", "overrides.teacher.cache.folder=d", "jobs=2"]
    )
    assert changed.overrides == {"teacher.cache.folder": "d", "teacher.backbone.pretrained": "F"}
    assert load(Study, path, ["overrides={a.b: 1}"]).overrides == {"a.b": 1}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"corpora": "langauge"}, "`corpora` is 'langauge'; expected an axis besides .*: corpus, objective"),
        ({"corpora": "seed"}, "`corpora` is 'seed'; expected an axis besides .*: corpus, objective"),
        ({"corpora": "corpus", "axes": {"seed": [0]}}, r"expected an axis besides .*: \(there is none\)"),
        ({"axes": AXES | {"size": {}}}, "axis 'size' has no value"),
        ({"scale": "layers"}, "`scale` is 'layers', which is no axis; expected one of corpus, objective, seed"),
        ({"baselines": [{}]}, "a baseline names no axis"),
        ({"baselines": [{"teacher": "mse"}]}, "'teacher' is no axis; expected one of corpus, objective, seed"),
        ({"baselines": [{"objective": "kl"}]}, "axis 'objective' has no 'kl'; expected one of mse, ot"),
        ({"baselines": [{"seed": 0}]}, "'seed' is averaged over"),
    ],
)
def test_mistakes_say_what_was_expected(given, message):
    with pytest.raises(ValidationError, match=message):
        study(**given)
