import pytest
from pydantic import ValidationError

from optical_scale.config.study import Study

AXES = {"corpus": {"news": {}, "bible": {}}, "objective": {"mse": {}, "ot": {}}, "seed": [0, 1]}


def study(**given):
    return Study.model_validate({"output": "o", "base": "b.yaml", "axes": AXES} | given)


def test_columns_and_baselines_name_axes():
    assert study(columns="corpus", baselines=[{"objective": "mse"}]).columns == "corpus"
    assert study().columns is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"columns": "langauge"}, "`columns` is 'langauge'; expected .* averaged over: corpus, objective"),
        ({"columns": "seed"}, "`columns` is 'seed'; expected .* averaged over: corpus, objective"),
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
