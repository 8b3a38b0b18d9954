"""Images as a source of captions in one language, for a student that reads captions."""

from dataclasses import replace

from optical_scale.errors import StreamError
from optical_scale.records import CaptionedImage, Record
from optical_scale.stream.source import Source, shard_sizes


class CaptionsOf:
    """All images of a source, each with its captions in the source's language only.

    Args:
        images: of any languages.

    Attributes:
        name: of ``images``, which differs between languages.
        language: of the captions.
        shard_sizes: of ``images``.
    """

    def __init__(self, images: Source) -> None:
        self._images = images
        self.name = images.name
        self.language = images.language
        self.shard_sizes = shard_sizes(images)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Record:
        """Image ``index``.

        Raises:
            StreamError: it has no caption in this language.
            ShardError: it cannot be read.
        """
        image = self._images[index]
        assert isinstance(image, CaptionedImage), "the recipe has looked at the kind"
        captions = tuple(caption for caption in image.captions if caption.language == self.language)
        if not captions:
            found = ", ".join(sorted({caption.language for caption in image.captions})) or "none"
            raise StreamError(
                f"image {image.key!r} ({image.corpus}) has no caption in {self.language!r}, only in: {found}; name the "
                "languages that every image has in `languages` of its source, or set stream.faults.policy=skip"
            )
        return replace(image, captions=captions)
