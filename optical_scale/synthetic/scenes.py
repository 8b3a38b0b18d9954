"""Drawn scenes with captions in nine languages and a box for every object, in the layout of Flickr30k Entities."""

import itertools
from pathlib import Path
from random import Random
from typing import NamedTuple

from optical_scale.errors import CorpusError
from optical_scale.runtime.seeding import derive_seed
from optical_scale.synthetic.drawing import SMALLEST, Rectangle, draw_scene
from optical_scale.synthetic.grammar import COLOURS, COUNTS, GRAMMARS, INVERSE, NOUNS, SIZES, Group
from optical_scale.synthetic.languages import LOW_RESOURCE
from optical_scale.synthetic.moses import write_aligned

_GROUPS = tuple(Group(*values) for values in itertools.product(NOUNS, COLOURS, SIZES, COUNTS))
_ORIENTATIONS = ("above", "left")
# Of the training captions, low-resource languages get one in this many.
_RARER = 10
# File names of the data set's split lists.
_LISTS = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}


class Scene(NamedTuple):
    """``first`` is ``relation`` (above or left) of ``second``; ``views`` are the relations its captions use."""

    identifier: str
    first: Group
    relation: str
    second: Group
    views: tuple[str, ...]
    entities: tuple[int, int]

    def captions(self, language: str, marked: bool) -> list[str]:
        """One caption per view, ``marked`` with the brackets of Flickr30k Entities."""

        def view(relation: str) -> str:
            ends = [(self.first, self.entities[0]), (self.second, self.entities[1])]
            (subject, subject_id), (other, other_id) = ends if relation == self.relation else ends[::-1]
            ids = (subject_id, other_id)

            def mark(place: int, phrase: str) -> str:
                return f"[/EN#{ids[place]}/other {phrase}]" if marked else phrase

            return GRAMMARS[language].caption(subject, relation, other, mark)

        return [view(relation) for relation in self.views]


def write_scenes(folder: Path, *, seed: int, train: int, validation: int, test: int, size: int = 64) -> dict[str, int]:
    """Write pictures of two groups of objects, captions with marked phrases, and boxes.

    Layout: ``images/ID.png``, ``Annotations/ID.xml``, ``Sentences/ID.txt`` (English) and ``Sentences_XX/ID.txt``
    (line i translates line i), the lists ``train.txt``, ``val.txt``, ``test.txt``, and the captions once more as
    Moses text: ``captions.SPLIT.en-XX.{en,XX}`` in eight languages, and ``captions.SPLIT.en-en.{query,passage}``,
    each caption with the one that says the same from the other end. Training bitext of the low-resource languages is
    a tenth of that of the others.

    No two images show the same scene, hence no caption occurs in two splits.

    Args:
        folder: existing folder for the files.
        seed: the same seed gives the same bytes (PNG bytes: with the same version of Pillow).
        train: images.
        validation: images.
        test: images.
        size: width and height of the images in pixels.

    Returns:
        Number of lines or files by name of file or folder.

    Raises:
        CorpusError: more images are asked for than scenes exist, or the images are too small to draw in.
    """
    if size < SMALLEST:
        raise CorpusError(f"synthetic scenes of {size} x {size} pixels are too small to draw; use {SMALLEST} or more")
    scenes = _scenes(train + validation + test, seed)
    for name in ("images", "Annotations", *(_sentence_folder(language) for language in GRAMMARS)):
        (folder / name).mkdir()
    for scene in scenes:
        _write_scene(folder, scene, size, seed)
    counts = dict.fromkeys(("images", "Annotations"), len(scenes))
    parts = {
        "train": scenes[:train],
        "validation": scenes[train : train + validation],
        "test": scenes[train + validation :],
    }
    for split, part in parts.items():
        (folder / _LISTS[split]).write_bytes("".join(f"{scene.identifier}\n" for scene in part).encode())
        counts[_LISTS[split]] = len(part)
        counts |= _write_captions(folder, split, part)
    return counts


def _scenes(number: int, seed: int) -> list[Scene]:
    """Distinct scenes in random order; every scene is a number in mixed radix, sampled without replacement."""
    pairs = [(a, b) for a, b in itertools.product(_GROUPS, repeat=2) if (a.noun, a.colour) != (b.noun, b.colour)]
    possible = len(pairs) * len(_ORIENTATIONS)
    if number > possible:
        raise CorpusError(
            f"synthetic scenes: {number:,} images asked for, but only {possible:,} distinct scenes exist; ask for fewer"
        )
    source = Random(derive_seed(seed, "scenes"))
    scenes = []
    for position, index in enumerate(source.sample(range(possible), number), start=1):
        (first, second), relation = pairs[index // 2], _ORIENTATIONS[index % 2]
        views: tuple[str, ...] = (relation, INVERSE[relation])
        if source.random() < 0.5:
            views = (source.choice(views),)
        # Entity ids are unique over the data set, as in the original, where 0 means "not visible".
        scenes.append(Scene(f"{position:06d}", first, relation, second, views, (2 * position - 1, 2 * position)))
    return scenes


def _sentence_folder(language: str) -> str:
    return "Sentences" if language == "en" else f"Sentences_{language}"


def _write_scene(folder: Path, scene: Scene, size: int, seed: int) -> None:
    source = Random(derive_seed(seed, "picture", scene.identifier))
    image, *boxes = draw_scene(scene.first, scene.second, scene.relation == "above", size, source)
    name = f"{scene.identifier}.png"
    (folder / "images" / name).write_bytes(image)
    (folder / "Annotations" / f"{scene.identifier}.xml").write_bytes(_annotation(name, size, scene, boxes).encode())
    for language in GRAMMARS:
        text = "".join(f"{caption}\n" for caption in scene.captions(language, marked=True))
        (folder / _sentence_folder(language) / f"{scene.identifier}.txt").write_bytes(text.encode())


def _annotation(name: str, size: int, scene: Scene, boxes: list[list[Rectangle]]) -> str:
    """The XML of one image; all values are numbers and our own names, so nothing needs escaping.

    The data set counts pixels from 1, last one included.
    """
    lines = [
        "<annotation>",
        f"  <filename>{name}</filename>",
        f"  <size><width>{size}</width><height>{size}</height><depth>3</depth></size>",
    ]
    for entity, rectangles in zip(scene.entities, boxes, strict=True):
        for left, top, right, bottom in rectangles:
            sides = (("xmin", left), ("ymin", top), ("xmax", right), ("ymax", bottom))
            corners = "".join(f"<{side}>{pixel + 1}</{side}>" for side, pixel in sides)
            lines.append(f"  <object><name>{entity}</name><bndbox>{corners}</bndbox></object>")
    return "\n".join([*lines, "</annotation>", ""])


def _write_captions(folder: Path, split: str, scenes: list[Scene]) -> dict[str, int]:
    """Captions as bitext; of the training part the low-resource languages get only every tenth pair."""
    english = [scene.captions("en", marked=False) for scene in scenes]
    counts: dict[str, int] = {}
    for language in GRAMMARS:
        if language != "en":
            said = [scene.captions(language, marked=False) for scene in scenes]
            rows = [pair for ours, theirs in zip(english, said, strict=True) for pair in zip(ours, theirs, strict=True)]
            if split == "train" and language in LOW_RESOURCE:
                rows = rows[::_RARER]
            counts |= write_aligned(folder, f"captions.{split}.en-{language}", ("en", language), rows)
    views = [scene._replace(views=(scene.views[0], INVERSE[scene.views[0]])) for scene in scenes]
    both = [scene.captions("en", marked=False) for scene in views]
    return counts | write_aligned(folder, f"captions.{split}.en-en", ("query", "passage"), both)
