"""Which language each side of a pair is in, by a model: texts in another language, and sides that were swapped."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import regex

from optical_scale.errors import CorpusError
from optical_scale.records import TextPair

ENGLISH = "en"
_LETTER = regex.compile(r"\p{L}")
_FASTTEXT_PREFIX = "__label__"
_HAN = {"Hani", "Hans", "Hant"}


class Identifier(Protocol):
    """A model that gives each of its labels a probability."""

    @property
    def labels(self) -> frozenset[str]:
        """Everything it can answer."""

    def best(self, text: str) -> tuple[str, float]:
        """The most probable label with its probability."""

    def probabilities(self, text: str) -> Mapping[str, float]:
        """All labels."""


class LanguageId:
    """Drop pairs of which a side is hardly in its language.

    A side stays if the probabilities of the labels that mean its language sum to ``min_probability`` or more. That
    is a low bar on purpose: related languages share the probability of a short text, another language leaves nothing.
    Sides with fewer than ``min_letters`` letters, and languages that the model does not know, are not judged. Keeps
    nothing between pairs; pickled, it is the arguments, and the model is loaded where it arrives.

    Args:
        model: a fastText classifier (``.bin`` or ``.ftz``) whose labels are language tags, as of lid.176, NLLB or
            GlotLID; None takes the model in the package py3langid.
        min_probability: between 0 and 1.
        min_letters: 1 or more.
        labels: by BCP-47 tag, which labels mean the language, in place of those that follow from the tag; an empty
            list leaves the language unjudged.

    Raises:
        CorpusError: the extra is not installed, the file is no model, or a label is none of the model's.
    """

    def __init__(
        self, model: Path | None, min_probability: float, min_letters: int, labels: Mapping[str, Sequence[str]]
    ) -> None:
        self._arguments = (model, min_probability, min_letters, dict(labels))
        self._identifier: Identifier = _BuiltIn() if model is None else _FastText(model)
        self._minimum, self._min_letters = min_probability, min_letters
        self._labels: dict[str, frozenset[str]] = {}
        for language, given in labels.items():
            if unknown := set(given) - self._identifier.labels:
                raise CorpusError(
                    f"filters.language_id.languages.{language}: the model has no label {', '.join(sorted(unknown))}; "
                    f"it has {', '.join(sorted(self._identifier.labels)):.1500}"
                )
            self._labels[language] = frozenset(given)

    def __reduce__(self) -> tuple[Any, ...]:
        return LanguageId, self._arguments

    def knows(self, language: str) -> bool:
        """Whether texts of a language (BCP-47 tag) are judged."""
        return bool(self._meaning(language))

    def __call__(self, pair: TextPair) -> str | None:
        """Reason ``swapped``; ``language_en`` if only the English side is wrong or both are; ``language``."""
        source_fits, target_fits = self._is(pair.source, ENGLISH), self._is(pair.target, pair.language)
        if source_fits and target_fits:
            return None
        if not source_fits and not target_fits and self._is(pair.source, pair.language):
            return "swapped" if self._is(pair.target, ENGLISH) else "language_en"
        return "language" if source_fits else "language_en"

    def _is(self, text: str, language: str) -> bool:
        meaning = self._meaning(language)
        if not meaning or len(_LETTER.findall(text)) < self._min_letters:
            return True
        best, probability = self._identifier.best(text)
        if best in meaning and probability >= self._minimum:
            return True  # settled without the probabilities of all others
        return sum(self._identifier.probabilities(text).get(label, 0) for label in meaning) >= self._minimum

    def _meaning(self, language: str) -> frozenset[str]:
        if language not in self._labels:
            wanted = _parts(language)
            matching = (label for label in self._identifier.labels if _means(_parts(label), wanted))
            self._labels[language] = frozenset(matching)
        return self._labels[language]


def _parts(tag: str) -> tuple[str, str | None]:
    """Language and script of a BCP-47 tag or a label such as ``swh_Latn``; macrolanguages, so swh is sw, cmn is zh."""
    import langcodes  # with the models in the extra

    try:
        language = langcodes.Language.get(tag.replace("_", "-")).prefer_macrolanguage()
    except langcodes.LanguageTagError:
        return tag, None
    return language.language or tag, language.script


def _means(label: tuple[str, str | None], wanted: tuple[str, str | None]) -> bool:
    """Equal languages; scripts have to agree where both name one."""
    scripts = {label[1], wanted[1]}
    return label[0] == wanted[0] and (len(scripts) == 1 or None in scripts or (scripts <= _HAN and "Hani" in scripts))


class _BuiltIn:
    """The model of py3langid: 138 languages, four megabytes, in the package."""

    def __init__(self) -> None:
        try:
            import langcodes  # noqa: F401  a missing one is to be reported here
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as error:
            raise _not_installed(error) from None
        self._model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        self.labels = frozenset(self._model.labels)

    def best(self, text: str) -> tuple[str, float]:
        label, probability = self._model.classify(text)
        return str(label), float(probability)

    def probabilities(self, text: str) -> Mapping[str, float]:
        return dict(self._model.rank(text))


class _FastText:
    """A classifier of fastText from a file."""

    def __init__(self, path: Path) -> None:
        try:
            import fasttext
            import langcodes  # noqa: F401  as above
        except ImportError as error:
            raise _not_installed(error) from None
        try:
            self._model = fasttext.load_model(str(path))
            self.labels = frozenset(self.probabilities("a"))  # also refuses models that only know word vectors
        except (ValueError, RuntimeError, MemoryError) as error:
            raise CorpusError(
                f"{path}: no language identification model ({error}); expected a fastText classifier, "
                "such as lid.176.ftz or GlotLID's model.bin"
            ) from None

    def best(self, text: str) -> tuple[str, float]:
        (label,), (probability,) = self._predict(text, 1)
        return label.removeprefix(_FASTTEXT_PREFIX), float(probability)

    def probabilities(self, text: str) -> Mapping[str, float]:
        labels, probabilities = self._predict(text, -1)
        return {label.removeprefix(_FASTTEXT_PREFIX): p for label, p in zip(labels, probabilities, strict=True)}

    def _predict(self, text: str, number: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
        answer: tuple[tuple[str, ...], tuple[float, ...]] = self._model.predict(
            text.replace("\n", " "), k=number, threshold=-1.0
        )
        return answer


def _not_installed(error: ImportError) -> CorpusError:
    return CorpusError(
        f"filters.language_id: the package {error.name} is not installed; "
        'install it with `pip install "optical-scale[langid]"`, or leave the filter out'
    )
