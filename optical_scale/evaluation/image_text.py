"""Image-text retrieval per language in both directions.

R@K is *any-hit*, as image-text papers report it on the Karpathy splits: a query counts when at least one of its
relevant items is among the first K, although an image there has five relevant captions. (Recall proper would divide by
five.) Late interaction lets text tokens search patches, in both directions, and takes the mean over text tokens.
"""

from collections.abc import Sequence
from itertools import pairwise

from optical_scale.errors import EvaluationError
from optical_scale.evaluation.bitext_retrieval import MODES
from optical_scale.evaluation.encoding import EncodedSet, EncodeImages, EncodeText, encode
from optical_scale.evaluation.ranking import Ranks
from optical_scale.evaluation.results import Mode, RetrievalResult, search, summarise
from optical_scale.evaluation.scoring import maxsim_ranks_of_queries
from optical_scale.records import CaptionedImage
from optical_scale.runtime.world import World

CUTOFFS = (1, 5, 10)


def evaluate_image_text(
    images: Sequence[CaptionedImage],
    encode_texts: EncodeText,
    encode_images: EncodeImages,
    *,
    batch_size: int,
    world: World,
    modes: Sequence[Mode] = MODES,
    languages: Sequence[str] | None = None,
) -> list[RetrievalResult]:
    """Search images with captions and captions with images, separately in each language.

    A language's collection are the images that have a caption in it. Equal captions are one text, relevant to every
    image that carries it. Images are ordered by key and captions by text, so the order of ``images`` changes nothing.

    Args:
        images: with captions in any languages; keys are unique.
        encode_texts: the text encoder.
        encode_images: the vision encoder, reading encoded image files.
        batch_size: items per forward pass.
        world: all its ranks must call; they share the encoding and the scoring.
        modes: scores to evaluate.
        languages: which caption languages; None means all, sorted.

    Returns:
        Per language and mode one result ``text_to_image`` and one ``image_to_text``; identical on every rank.

    Raises:
        EvaluationError: no caption in a language, two images with one key, or unusable vectors.
    """
    images = sort_by_key(images)
    if languages is None:
        languages = sorted({caption.language for image in images for caption in image.captions})
    if not languages:
        raise EvaluationError(f"evaluation: none of the {len(images)} images has a caption")
    tables = [(language, *_carriers(language, images)) for language in languages]
    patches = encode([image.image for image in images], encode_images, batch_size=batch_size, world=world)
    results = []
    for language, captions, carriers in tables:
        texts = encode(captions, encode_texts, batch_size=batch_size, world=world)
        used = sorted({image for positions in carriers for image in positions})
        position = {image: i for i, image in enumerate(used)}
        relevant = [[position[image] for image in positions] for positions in carriers]
        collection = patches.pick(used)
        for mode in modes:
            ranks = search(texts, collection, relevant, mode, world)
            results.append(summarise("image_text", language, mode, "text_to_image", ranks, len(used), CUTOFFS))
            ranks = _search_captions(texts, collection, relevant, mode, world)
            results.append(summarise("image_text", language, mode, "image_to_text", ranks, len(captions), CUTOFFS))
    return results


def sort_by_key(images: Sequence[CaptionedImage]) -> list[CaptionedImage]:
    """The images in the order of their keys.

    Raises:
        EvaluationError: two images have one key.
    """
    ordered = sorted(images, key=lambda image: image.key)
    for one, other in pairwise(ordered):
        if one.key == other.key:
            raise EvaluationError(f"evaluation: two images have the key {one.key!r}; keys must be unique")
    return ordered


def _carriers(language: str, images: Sequence[CaptionedImage]) -> tuple[list[str], list[list[int]]]:
    """Distinct captions of a language, sorted, and for each the positions of the images that carry it."""
    found: dict[str, set[int]] = {}
    for position, image in enumerate(images):
        for caption in image.captions:
            if caption.language == language:
                found.setdefault(caption.text, set()).add(position)
    if not found:
        raise EvaluationError(f"evaluation: none of the {len(images)} images has a caption in language {language}")
    captions = sorted(found)
    return captions, [sorted(found[text]) for text in captions]


def _search_captions(
    texts: EncodedSet, images: EncodedSet, carriers: Sequence[Sequence[int]], mode: Mode, world: World
) -> Ranks:
    """Ranks of each image's captions among all captions."""
    captions_of: list[list[int]] = [[] for _ in range(len(images))]
    for caption, positions in enumerate(carriers):
        for image in positions:
            captions_of[image].append(caption)
    if mode == "dense":
        return search(images, texts, captions_of, mode, world)
    return maxsim_ranks_of_queries(texts, images, captions_of, top_k=1, world=world).ranks
