"""Objectives that cannot be are refused before anything starts."""

import pytest
from pydantic import TypeAdapter, ValidationError

from optical_scale.config.objectives import Objective
from optical_scale.config.schedule import Alarms, Limit
from optical_scale.recipes.describe_objective import describe

ADAPTER = TypeAdapter(Objective)
TRANSPORT = {"name": "optimal_transport"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (TRANSPORT | {"rho": 0.5, "mass": 0.5}, "rho .unbalanced. and mass .partial. exclude each other"),
        (TRANSPORT | {"debias": True, "rho": 0.5}, "debias needs balanced transport"),
        (TRANSPORT | {"debias": True, "mass": 0.5}, "debias needs balanced transport"),
        (TRANSPORT | {"solver": "ipot", "anneal": [2]}, "leave anneal empty"),
        (TRANSPORT | {"anneal": [0.5]}, "greater than or equal to 1"),
        (TRANSPORT | {"mass": 1.5}, "less than or equal to 1"),
        (TRANSPORT | {"epsilon": 0}, "greater than or equal to 0.0001"),
        (TRANSPORT | {"rho": float("inf")}, "finite number"),
        ({"name": "token_kl", "epsilon": 1e-5}, "greater than or equal to 0.0001"),
        ({"name": "token_kl", "temperature": float("inf")}, "finite number"),
        ({"name": "mse", "token_weights": "norm"}, "'uniform' or 'idf'"),
        (
            {
                "name": "mixture",
                "parts": [{"weight": {"start": 0, "end": 0, "to_step": 3}, "objective": {"name": "mse"}}],
            },
            "weight is 0 from start to end",
        ),
        (TRANSPORT | {"epsilon": {"start": 0.1, "end": 0, "to_step": 5}}, "epsilon must not fall below 0.0001"),
        (TRANSPORT | {"epsilon": {"start": 1, "end": 0.1, "from_step": 9, "to_step": 5}}, "must lie after from_step"),
        (
            {"name": "contrastive", "exchange": "turns", "late_interaction": 1},
            "turns has dense scores in both directions only",
        ),
        ({"name": "mixture", "parts": []}, "at least 1 item"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(values)


def test_a_limit_needs_a_side():
    with pytest.raises(ValidationError, match="neither `above` nor `below`"):
        Limit(metric="margin")
    assert Alarms(limits=[]).limits == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (TRANSPORT | {"debias": True, "marginals": "norm"}, ("debiased entropic", "token lengths", "epsilon 0.02")),
        (TRANSPORT | {"marginals": "idf"}, ("inverse document frequency",)),
        (
            {
                "name": "mixture",
                "parts": [{"weight": 1, "objective": {"name": "mse"}, "layers": {"teacher": 3, "student": 1}}],
            },
            ("embeddings of teacher and student, at layer 3 of the teacher and layer 1 of the student)",),
        ),
        (TRANSPORT | {"solver": "ipot", "rho": 0.5, "order": 0.1}, ("unbalanced (rho 0.5)", "order-aware", "IPOT")),
        (TRANSPORT | {"mass": 0.8, "epsilon_mode": "relative"}, ("partial (0.8", "x standard deviation")),
        ({"name": "greedy", "direction": "both"}, ("each side", "nearest")),
        ({"name": "mse", "token_weights": "idf"}, ("weighed by inverse document frequency", "mean-pooled")),
        ({"name": "contrastive", "token_weights": "idf"}, ("weighed by inverse document frequency", "InfoNCE")),
        ({"name": "token_mse"}, ("aligned by transport",)),
        ({"name": "token_kl"}, ("softmax", "aligned to by transport", "temperature 0.1")),
        ({"name": "siglip"}, ("sigmoid", "bias -10")),
        ({"name": "list_kl"}, ("MaxSim",)),
        ({"name": "list_kl", "token_weights": "idf"}, ("MaxSim scores, tokens weighed by inverse",)),
        ({"name": "region_alignment"}, ("boxes", "temperature 0.05")),
        (
            {
                "name": "mixture",
                "parts": [{"weight": {"start": 1, "end": 0, "to_step": 9}, "objective": {"name": "mse"}}],
            },
            ("1 to 0 over steps 0 to 9 x (squared distance",),
        ),
    ],
)
def test_the_model_card_tells_what_was_minimised(values, words):
    sentence = describe(ADAPTER.validate_python(values))
    for word in words:
        assert word in sentence
