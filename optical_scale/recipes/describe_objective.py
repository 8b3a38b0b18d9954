"""The objective in words, for a model card."""

from typing import assert_never

from optical_scale.config import objectives as schema


def describe(objective: schema.Objective) -> str:
    """One sentence without a full stop."""
    match objective:
        case schema.OptimalTransport():
            return (
                "<P, C> with C the cosine distance of teacher and student tokens and P the "
                f"{_plan(objective)} (epsilon {_number(objective.epsilon)}"
                f"{' x standard deviation' if objective.epsilon_mode == 'relative' else ''}, "
                f"{objective.iterations} iterations; arXiv 2301.12566)"
            )
        case schema.PooledMSE():
            pooled = _weighed("mean-pooled embeddings", objective.token_weights)
            return f"squared distance between {pooled} of teacher and student"
        case schema.TokenMSE():
            return f"squared distance of tokens aligned by transport (epsilon {objective.epsilon:g})"
        case schema.TokenKL():
            return (
                "KL divergence of a token's softmax over the sentence's teacher tokens from that of the tokens it is "
                f"aligned to by transport (epsilon {objective.epsilon:g}, temperature {objective.temperature:g})"
            )
        case schema.Greedy():
            whose = (
                "each side's tokens" if objective.direction == "both" else f"each of the {objective.direction}'s tokens"
            )
            return f"cosine distance of {whose} to the nearest of the other side (arXiv 2112.08185)"
        case schema.Contrastive():
            return _contrast(objective)
        case schema.SigLIP():
            return (
                f"sigmoid loss on mean-pooled embeddings (temperature {objective.temperature:g}, "
                f"bias {objective.bias:g}; arXiv 2303.15343)"
            )
        case schema.ListKL():
            scores = _weighed(_scores(objective.scores), objective.token_weights)
            return (
                f"KL divergence of in-batch lists of {scores} (temperature {objective.temperature:g}; arXiv 2401.04810)"
            )
        case schema.ScoreKL():
            return (
                f"KL divergence of {_scores(objective.scores)} (temperature {objective.temperature:g}) from recorded "
                f"scores (temperature {objective.score_temperature:g}) of each query's passages"
            )
        case schema.MarginMSE():
            return (
                f"squared distance of margins of {_scores(objective.scores)} (temperature {objective.temperature:g}) "
                "from recorded ones (arXiv 2010.02666)"
            )
        case schema.RegionAlignment():
            return (
                "-log of the share of a phrase's attention over patches that falls into its boxes "
                f"(temperature {objective.temperature:g})"
            )
        case schema.Mixture():
            return "; ".join(map(_part, objective.parts))
        case _:
            assert_never(objective)


def _part(part: schema.Weighted) -> str:
    sides = {"teacher": part.layers.teacher, "student": part.layers.student}
    told = [f"layer {number} of the {side}" for side, number in sides.items() if number is not None]
    return f"{_number(part.weight)} x ({describe(part.objective)}{', at ' if told else ''}{' and '.join(told)})"


def _weighed(what: str, weights: schema.TokenWeights) -> str:
    return f"{what}, tokens weighed by inverse document frequency," if weights == "idf" else what


def _contrast(objective: schema.Contrastive) -> str:
    parts = ((objective.dense, "mean-pooled embeddings"), (objective.late_interaction, "MaxSim"))
    told = [
        f"{'' if weight == 1 else f'{weight:g} x '}InfoNCE on {_weighed(what, objective.token_weights)} "
        f"(temperature {objective.temperature:g})"
        for weight, what in parts
        if weight
    ]
    return " and ".join(told) + ("" if objective.symmetric else ", from queries to passages")


def _scores(kind: str) -> str:
    return "MaxSim scores" if kind == "maxsim" else "cosines"


def _plan(objective: schema.OptimalTransport) -> str:
    words = [
        "debiased" if objective.debias else "",
        f"unbalanced (rho {objective.rho:g})" if objective.rho is not None else "",
        f"partial ({objective.mass:g} of the mass)" if objective.mass is not None else "",
        f"order-aware ({objective.order:g})" if objective.order else "",
        "entropic transport plan" if objective.solver == "sinkhorn" else "transport plan by IPOT",
        {
            "uniform": "",
            "norm": "between masses in proportion to token lengths",
            "attention": "between masses by the sentence's attention",
            "idf": "between masses in proportion to inverse document frequency",
        }[objective.marginals],
    ]
    return " ".join(filter(None, words))


def _number(value: float | schema.Ramp) -> str:
    if isinstance(value, schema.Ramp):
        return f"{value.start:g} to {value.end:g} over steps {value.from_step} to {value.to_step}"
    return f"{value:g}"
