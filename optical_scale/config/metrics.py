"""The names of what a training run logs, so that an alarm on anything else is refused before it starts."""

from collections import Counter

from optical_scale.config.objectives import Mixture, Objective, Single

_PLAN = ("marginal_error", "effective_matches")
OF_OBJECTIVES: dict[str, tuple[str, ...]] = {
    "optimal_transport": _PLAN,
    "mse": (),
    "token_mse": _PLAN,
    "token_kl": _PLAN,
    "greedy": (),
    "contrastive": ("in_batch_accuracy",),
    "siglip": ("in_batch_accuracy",),
    "list_kl": ("same_first",),
    "score_kl": ("same_first", "scored"),
    "margin_mse": ("same_order", "scored"),
    "region_alignment": ("mass_in_boxes", "pairs_with_phrases"),
}
OF_STEPS = (
    "loss",
    "gradient_norm",
    "learning_rate",
    "token_variance",
    "uniformity",
    "margin",
    "pairs_per_second_per_rank",
    "tokens_per_second_per_rank",
    "data_wait",
    "objective_share",
    "mfu",
    "memory_gib",
    "hours_left",
    "non_finite",
)
"""Some only now and then: `mfu` where the device's peak is known, `non_finite` once a step was left out."""
OF_TOWERS = ("loss_texts", "loss_images")
"""Where texts and images are learned in one run."""
SKIPPED = "skipped_"
"""What the counts of samples that could not be used begin with."""


def of_objective(objective: Objective) -> list[str]:
    """What an objective reports; a name that comes again in a mixture is reported as ``name_2``."""
    if not isinstance(objective, Mixture):
        return list(OF_OBJECTIVES[objective.name])
    seen = Counter[str]()
    found = []
    for part in objective.parts:
        single: Single = part.objective
        for name in (single.name, *OF_OBJECTIVES[single.name]):
            seen[name] += 1
            found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found


def logged(objective: Objective, *, towers: bool) -> list[str]:
    """What a run may log, but for counts of skipped samples; ``towers`` says whether it learns texts and images."""
    return [*OF_STEPS, *(OF_TOWERS if towers else ()), *of_objective(objective)]
