"""Fixed inputs whose embeddings a checkpoint records, so that an export can prove that it is the trained model."""

import json
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from optical_scale.batch import PatchBatch, TokenBatch, TokenStates
from optical_scale.runtime.files import write_atomic

TEXTS = (
    "Two people walk along the river at dusk.",
    "Watu wawili wanatembea kando ya mto jioni.",
    "Dos personas caminan junto al río al anochecer.",
    "Zwei Menschen gehen in der Dämmerung am Fluss entlang.",
    "Два человека идут вдоль реки в сумерках.",
    "شخصان يسيران على طول النهر عند الغسق.",
    "शाम को दो लोग नदी के किनारे चलते हैं।",
    "夕暮れに二人が川沿いを歩いている。",
    "해질녘에 두 사람이 강을 따라 걷고 있다.",
    "  double  spaces,\ttabs and 12,345.67 € (≈ ½)  ",
    "x",
    "«x», ¿x?",
    "?!",
    "",
    "a text that is longer than most limits " * 40,
)
"""Several scripts, whitespace, a letter, punctuation, nothing, more than any limit: what tokenizers stumble on."""


def write_reference(path: Path, batch: TokenBatch | PatchBatch, states: TokenStates) -> None:
    """Write inputs and outputs of the engine as ``reference.safetensors``.

    Args:
        path: of the file.
        batch: :data:`TEXTS` as the student's tokens, or any images.
        states: what the engine made of it.
    """
    tensors: dict[str, Tensor] = {"x_BTD": states.x_BTD.float()}
    texts: tuple[str, ...] = ()
    if isinstance(batch, TokenBatch):
        texts = TEXTS
        tensors |= {"ids_BT": batch.ids_BT, "attention_BT": batch.attention_BT, "mask_BT": batch.mask_BT}
    else:
        tensors["pixels_BCHW"] = batch.pixels_BCHW
    content = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    write_atomic(path, save(content, {"texts": json.dumps(texts)}))
