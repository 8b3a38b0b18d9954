"""Stream configurations become the loader of one rank."""

from optical_scale.backbones.tokenizers import TextTokenizer
from optical_scale.backbones.vision import ImageTransform
from optical_scale.config import stream as schema
from optical_scale.errors import ConfigError
from optical_scale.runtime.world import World
from optical_scale.shards.reader import ShardFolder
from optical_scale.stream.collate import PairCollator
from optical_scale.stream.loader import StreamLoader
from optical_scale.stream.source import Source


def sources(config: schema.Stream, kind: str) -> list[Source]:
    """One source per folder and language.

    Raises:
        ConfigError: a folder holds the other kind of samples than the student reads.
        ShardError: a folder or a language is not there.
    """
    found: list[Source] = []
    for number, entry in enumerate(config.sources):
        folder = ShardFolder(entry.shards)
        if folder.manifest.kind != kind:
            raise ConfigError(
                f"stream.sources.{number}.shards: {entry.shards} holds {folder.manifest.kind}; the student reads {kind}"
            )
        # Every image carries all its captions, so images are one source; the collator picks the English caption.
        languages = (entry.languages or list(folder.languages)) if kind == "bitext" else ["en"]
        found += [folder.select(language) for language in languages]  # type: ignore[misc]
    return found


def loader(
    config: schema.Stream, tokenize: TextTokenizer, prepare: TextTokenizer | ImageTransform, *, world: World, seed: int
) -> StreamLoader:
    """The training stream: ``tokenize`` reads the English side, ``prepare`` the student's."""
    if isinstance(prepare, TextTokenizer):
        kind, collate = "bitext", PairCollator(tokenize, tokenize_target=prepare)
    else:
        kind, collate = "images", PairCollator(tokenize, transform_images=prepare)
    return StreamLoader(
        sources(config, kind),
        collate,
        world=world,
        pairs_per_step=config.pairs_per_step,
        micro_batch_pairs=config.micro_batch_pairs,
        seed=seed,
        temperature=config.temperature,
        weights=config.weights,
        workers=config.workers,
    )
