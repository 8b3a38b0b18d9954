"""Topics into English by a local sequence-to-sequence model: the translate-query baseline."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from optical_scale.errors import EvaluationError


class Translator:
    """MarianMT (OPUS-MT), NLLB, M2M-100 or mBART from a folder of transformers.

    Args:
        folder: model and tokenizer.
        source: the model's code of the topics' language, as ``swh_Latn``; None for models of one pair of languages.
        target: its code of English; None likewise.

    Raises:
        EvaluationError: the folder has no such model, or the tokenizer does not know a code.
    """

    def __init__(self, folder: Path, source: str | None = None, target: str | None = None) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        codes = {"src_lang": source} if source else {}
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, **codes)
            self._model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise EvaluationError(
                f"{folder}: no translation model ({error!r:.150}); expected a folder of transformers"
            ) from None
        vocabulary = self._tokenizer.get_vocab()
        for code in filter(None, (source, target)):
            if code not in vocabulary:
                raise EvaluationError(f"{folder}: the tokenizer has no language code {code!r}; see its model card")
        self._begin = {"forced_bos_token_id": vocabulary[target]} if target else {}
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], *, batch_size: int = 16, max_tokens: int = 128) -> list[str]:
        """Translations by beam search with four beams, one per text."""
        found: list[str] = []
        for start in range(0, len(texts), batch_size):
            part = list(texts[start : start + batch_size])
            batch = self._tokenizer(part, return_tensors="pt", padding=True, truncation=True, max_length=max_tokens)
            tokens = self._model.generate(
                input_ids=batch["input_ids"].to(self._device),
                attention_mask=batch["attention_mask"].to(self._device),
                num_beams=4,
                max_new_tokens=max_tokens,
                **self._begin,
            )
            found += self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return found
