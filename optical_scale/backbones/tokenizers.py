"""Text to token batches, and new unigram tokenizers for corpora that no published one covers."""

import copy
import hashlib
import json
import string
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from optical_scale.batch import TokenBatch
from optical_scale.errors import ConfigError
from optical_scale.runtime.files import folder_appears

ADDED = np.uint32(1 << 31)
"""Marks a token that the tokenizer added itself; ids are below."""


class TextTokenizer:
    """Tokenises, cuts, pads on the right and marks which tokens take part in token-level scores.

    The tokens a tokenizer adds itself (such as <s> and </s>) never take part, and on demand no :func:`punctuation`. No
    row is without any: a text of punctuation alone keeps it, and one without tokens of its own, such as the empty
    string, keeps those that were added.

    With ``fill`` all texts are as long as ``max_tokens``: what is missing is padding that the network attends to.

    Several threads may call one object. transformers' own call sets truncation and padding anew each time, which fails
    with "Already borrowed" while another thread tokenises; here a copy has them set once.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        max_tokens: int,
        prefix: str = "",
        passage_prefix: str | None = None,
        mask_punctuation: bool = False,
        *,
        fill: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.fill = fill
        self.max_tokens = max_tokens
        self.prefix = prefix
        self.passage_prefix = passage_prefix
        self.mask_punctuation = mask_punctuation
        for text in filter(None, (prefix.strip(), (passage_prefix or "").strip())):
            # Markers such as [unused0] are in BERT's vocabulary, but its tokenizer would split them.
            if text in tokenizer.get_vocab() and len(tokenizer.tokenize(text)) > 1:
                tokenizer.add_tokens([text])
        self._encoder: Tokenizer = copy.deepcopy(tokenizer.backend_tokenizer)
        self._encoder.enable_truncation(max_tokens, direction=tokenizer.truncation_side)
        self._encoder.no_padding()
        self._punctuation_V = punctuation(tokenizer) if mask_punctuation else None
        if fill:
            pad = tokenizer.convert_ids_to_tokens(tokenizer.pad_token_id)
            self._encoder.enable_padding(length=max_tokens, pad_id=tokenizer.pad_token_id, pad_token=pad)

    @classmethod
    def load(
        cls,
        folder: Path,
        max_tokens: int,
        prefix: str = "",
        passage_prefix: str | None = None,
        mask_punctuation: bool = False,
        *,
        fill: bool = False,
    ) -> "TextTokenizer":
        """Read a tokenizer folder; the rest as in the class.

        Raises:
            ConfigError: the folder holds no fast tokenizer.
        """
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ConfigError(f"tokenizer: {folder} holds no tokenizer that transformers can load: {error}") from error
        if not tokenizer.is_fast:
            raise ConfigError(
                f"tokenizer: {folder} gives {type(tokenizer).__name__}, which is not a fast tokenizer; save one with a "
                "tokenizer.json there, or name another folder as `tokenizer` of the backbone"
            )
        if tokenizer.pad_token_id is None:
            raise ConfigError(
                f"tokenizer: {folder} has no padding token; name one of its tokens as pad_token in "
                "tokenizer_config.json, or another folder as `tokenizer` of the backbone"
            )
        return cls(tokenizer, max_tokens, prefix, passage_prefix, mask_punctuation, fill=fill)

    def for_passages(self) -> "TextTokenizer":
        """The same with the passages' prefix before every text; itself where there is none."""
        if self.passage_prefix is None:
            return self
        return TextTokenizer(
            self.tokenizer,
            self.max_tokens,
            self.passage_prefix,
            mask_punctuation=self.mask_punctuation,
            fill=self.fill,
        )

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        """B texts to a :class:`TokenBatch` of the longest length in the batch."""
        return self.batch(self.encode(texts))

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """The ids of each text, cut; those that the tokenizer added itself have the bit :data:`ADDED` set."""
        return [_packed(row) for row in self._encoder.encode_batch_fast([self.prefix + text for text in texts])]

    def spans(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """For each text the characters of the tokens that take part, in the order of the mask.

        Returns:
            First character and the one after the last; a token may include the blank before its word, and one of the
            prefix covers nothing.
        """
        skipped, found = len(self.prefix), []
        for row in self._encoder.encode_batch([self.prefix + text for text in texts]):
            spans = [(max(start - skipped, 0), max(end - skipped, 0)) for start, end in row.offsets]
            mask_1T = self._mask(_packed(row)[None], np.ones((1, len(spans)), dtype=np.bool_))
            found.append([span for span, taken in zip(spans, mask_1T[0], strict=True) if taken])
        return found

    def batch(self, rows: Sequence[NDArray[np.uint32]]) -> TokenBatch:
        """What :meth:`encode` gave, padded to the longest."""
        lengths_B = np.array([len(row) for row in rows])
        attention_BT = np.arange(lengths_B.max()) < lengths_B[:, None]
        packed_BT = np.full(attention_BT.shape, self.tokenizer.pad_token_id, dtype=np.uint32)
        packed_BT[attention_BT] = np.concatenate(rows)
        ids_BT = (packed_BT & (ADDED - 1)).astype(np.int64)
        found = (ids_BT, attention_BT, self._mask(packed_BT, attention_BT))
        return TokenBatch(*(torch.from_numpy(tensor) for tensor in found))

    def _mask(self, packed_BT: NDArray[np.uint32], attention_BT: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The tokens that take part; what would leave a row without any is not left out of it."""
        mask_BT = attention_BT
        left_out = [packed_BT >= ADDED]
        if self._punctuation_V is not None:
            left_out.append(self._punctuation_V[packed_BT & (ADDED - 1)])
        for out_BT in left_out:
            rest_BT = mask_BT & ~out_BT
            mask_BT = np.where(rest_BT.any(1, keepdims=True), rest_BT, mask_BT)
        return mask_BT

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the encoder will see it, special ones included."""
        return [len(row) for row in self.encode(texts)]

    def digest(self) -> str:
        """Changes whenever a count of :meth:`lengths` could: a hash of the tokenizer, the limit and the prefix."""
        described = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # set anew by every call
            del described[state]
        text = json.dumps([described, self.max_tokens, self.prefix], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def pieces(self, text: str) -> list[str]:
        """The tokens of one text that take part, as people read them, in the order of the mask."""
        batch = self([text])
        ids = batch.ids_BT[0][batch.mask_BT[0]].tolist()
        return [self.tokenizer.decode([token]).strip() or "▁" for token in ids]

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        self.tokenizer.save_pretrained(folder)


def punctuation(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.bool_]:
    """Which ids of a tokenizer stand for punctuation alone, (V,).

    Every character of their text is in Unicode's categories P or among ASCII's 32 punctuation marks, which are the skip
    list of ColBERT (Khattab and Zaharia 2020, arXiv 2004.12832, section 3.2). A blank alone is no punctuation.
    """
    ids = range(1 + max(tokenizer.get_vocab().values()))
    texts = tokenizer.backend_tokenizer.decode_batch([[index] for index in ids], skip_special_tokens=False)
    return np.array([_is_punctuation(text.strip()) for text in texts], dtype=np.bool_)


def _is_punctuation(text: str) -> bool:
    return bool(text) and all(c in string.punctuation or unicodedata.category(c).startswith("P") for c in text)


def _packed(row: Encoding) -> NDArray[np.uint32]:
    added_T = np.array(row.special_tokens_mask, dtype=np.uint32) * ADDED
    return np.array(row.ids, dtype=np.uint32) | added_T


def train_unigram(texts: Iterable[str], output: Path, *, vocabulary: int) -> int:
    """Train a unigram tokenizer with XLM-R's special tokens and write it as a Hugging Face folder.

    Args:
        texts: training sentences, read once.
        output: folder that appears when training has succeeded.
        vocabulary: pieces asked for, special tokens included.

    Returns:
        Pieces in the vocabulary, at most ``vocabulary``.

    Raises:
        ConfigError: ``output`` exists already.
    """
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        texts,
        trainers.UnigramTrainer(vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )
    try:
        with folder_appears(output) as folder:
            fast.save_pretrained(folder)
    except FileExistsError as error:
        raise ConfigError(f"output: {error}; choose another folder or delete it to train anew") from error
    return len(fast)
