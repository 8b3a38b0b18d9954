"""Schemas of image-caption corpora -> readers."""

from pathlib import Path
from typing import assert_never

from optical_scale.config.image_corpora import (
    CaptionLines,
    Crossmodal3600,
    Flickr30kEntities,
    FlickrCaptions,
    ImageCorpus,
    Karpathy,
)
from optical_scale.corpora.captioned import CaptionedImagesCorpus, CaptionLayout
from optical_scale.corpora.captions.crossmodal3600 import LANGUAGES, Crossmodal3600Captions
from optical_scale.corpora.captions.flickr import FlickrCaptionFiles
from optical_scale.corpora.captions.karpathy import KarpathyCaptions
from optical_scale.corpora.captions.lines import CaptionLineFiles
from optical_scale.corpora.flickr30k_entities import Flickr30kEntitiesCorpus
from optical_scale.corpora.pictures import PictureRule


def build_image_corpus(config: ImageCorpus, folder: Path) -> Flickr30kEntitiesCorpus | CaptionedImagesCorpus:
    """The reader of one corpus; relative paths start at ``folder``.

    Raises:
        CorpusError: a language is no BCP-47 tag.
    """
    how = config.pictures
    rule = PictureRule(how.short_side, how.quality, how.max_pixels)
    match config:
        case Flickr30kEntities():
            return Flickr30kEntitiesCorpus(
                config.name,
                folder / config.path,
                folder / config.split,
                tuple(config.languages),
                folder / config.images if config.images else None,
                rule,
                how.faults,
            )
        case FlickrCaptions():
            files = {language: folder / path for language, path in config.captions.items()}
            splits = {name: folder / path for name, path in config.splits.items()}
            layout: CaptionLayout = FlickrCaptionFiles(files, splits)
        case Karpathy():
            layout = KarpathyCaptions(folder / config.path, tuple(config.splits), config.language)
        case CaptionLines():
            columns = {
                language: tuple(folder / path for path in (paths if isinstance(paths, list) else [paths]))
                for language, paths in config.captions.items()
            }
            layout = CaptionLineFiles(folder / config.image_list, columns, config.split)
        case Crossmodal3600():
            languages = LANGUAGES if config.languages is None else tuple(config.languages)
            layout = Crossmodal3600Captions(folder / config.path, languages)
        case _:
            assert_never(config)
    return CaptionedImagesCorpus(config.name, layout, folder / config.images, rule, how.faults)
