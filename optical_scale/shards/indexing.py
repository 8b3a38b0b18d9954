"""Webdataset tars of another program become readable where they lie: an index beside each and, last, a manifest."""

import contextlib
import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from optical_scale.errors import ShardError
from optical_scale.records import TextPair
from optical_scale.runtime.files import sha256, write_atomic
from optical_scale.runtime.log import progress
from optical_scale.runtime.pool import map_in_order
from optical_scale.shards.index import MARK, IndexEntry, index_path
from optical_scale.shards.layout import Layout, UnusableSampleError, safe_key
from optical_scale.shards.manifest import FILE_NAME, Dropped, Manifest, ShardEntry, write_manifest
from optical_scale.shards.spans import spans


class Scan(NamedTuple):
    """What a tar holds.

    Attributes:
        packed: bytes of its index.
        samples: number of samples in the index.
        languages: pairs or captions by language.
        dropped: samples left out, by language (``""`` for images) and reason.
        seen: samples of the tar, those left out included.
    """

    packed: bytes
    samples: int
    languages: Counter[str]
    dropped: Counter[tuple[str, str]]
    seen: int


def scan(path: Path, layout: Layout) -> Scan:
    """Read every sample of a tar.

    Raises:
        ShardError: the tar is unsound, or a sample is and ``layout.faults`` is ``error``; the message names it.
    """
    index = bytearray(MARK)
    languages: Counter[str] = Counter()
    dropped: Counter[tuple[str, str]] = Counter()
    samples = seen = 0
    names: set[str] = set()
    with contextlib.ExitStack() as stack:
        file = None
        for key, offset, size in spans(path):
            file = file or stack.enter_context(path.open("rb"))
            seen += 1
            file.seek(offset)
            sample = file.read(size)
            try:
                record = layout.decode(sample, path.name)
                if record.key in names:
                    raise ShardError(f"{path}: sample {key!r}: another one also becomes `{record.key}`; rename one")
                names.add(record.key)
            except ValueError as error:
                if not isinstance(error, UnusableSampleError) or not (error.harmless or layout.faults == "drop"):
                    raise ShardError(
                        f"{path}: sample {key!r}: {error}; name the right places, repair the sample, or leave out and "
                        "count such samples by `--faults drop`"
                    ) from None
                dropped[(layout.language or "") if layout.kind == "bitext" else "", error.reason] += 1
                continue
            if isinstance(record, TextPair):
                languages[record.language] += 1
            else:
                languages.update(caption.language for caption in record.captions)
            samples += 1
            index += IndexEntry.of(offset, sample).pack()
    return Scan(bytes(index), samples, languages, dropped, seen)


class _Indexed(NamedTuple):
    """A tar whose index is written; without usable samples it has no entry and no index."""

    tar: Path
    entry: ShardEntry | None
    scan: Scan


def index_folder(folder: Path, layout: Layout, processes: int = 1) -> Manifest:
    """Write ``{tar}.index`` beside each ``*.tar`` of ``folder`` and then ``manifest.json``; tars are not touched.

    Failures that img2dataset recorded in its ``*_stats.json`` are counted as dropped images, and tars whose number of
    samples contradicts them are refused. A tar without usable samples is counted, but has no place in the manifest. On
    any error no index is left behind.

    Args:
        folder: with the tars.
        layout: how their samples are read.
        processes: tars are read side by side.

    Raises:
        ShardError: the folder has no tars, a manifest already or no usable sample, or :func:`scan` refuses a tar.
        WorkerError: a process was killed.
    """
    tars = _tars(folder)
    failures = _failures(tars)
    try:
        done = list(_index_all(tars, layout, processes))
        manifest = _manifest(folder, layout, done, failures)
        write_manifest(folder, manifest)
    except BaseException as error:
        for tar in tars:
            with contextlib.suppress(OSError):
                index_path(tar).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ShardError(
                f"{folder}: cannot be written ({error.strerror or error}); indexes and manifest lie beside the tars, "
                "so give permission, make room, or copy the folder"
            ) from error
        raise
    return manifest


def _tars(folder: Path) -> list[Path]:
    if (folder / FILE_NAME).exists():
        raise ShardError(
            f"{folder}: has a {FILE_NAME}, so it is a shard folder already; delete that file and every *.tar.index to "
            "index the tars again"
        )
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise ShardError(f"{folder}: no *.tar in it; expected webdataset tars, unpacked if they are compressed")
    names: dict[str, Path] = {}
    for tar in tars:
        index = index_path(tar)
        if index.exists() and not _is_ours(index):
            raise ShardError(f"{index}: exists and is no index of ours, which would replace it; move it away")
        first = names.setdefault(safe_key(tar.name, ""), tar)
        if first != tar:
            raise ShardError(f"{tar}: its keys would be those of {first.name}; rename one of the tars")
    return tars


def _is_ours(index: Path) -> bool:
    """Whether it was left by an earlier attempt."""
    try:
        with index.open("rb") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False


def _failures(tars: Sequence[Path]) -> dict[str, tuple[int, Counter[str]]]:
    """By name of the tar, the samples it should hold and the failures, where img2dataset wrote them down.

    Raises:
        ShardError: it did for some tars and not for others, which it has not finished, or a file is unreadable.
    """
    found = {}
    for tar in tars:
        path = tar.with_name(f"{tar.stem}_stats.json")
        if not path.is_file():
            continue
        try:
            stats = json.loads(path.read_bytes())
            failed = {name: int(stats[name]) for name in ("failed_to_download", "failed_to_resize")}
            found[tar.name] = int(stats["successes"]), +Counter(failed)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{path}: no statistics of img2dataset ({error!r}); download the shard again") from None
    missing = [tar for tar in tars if tar.name not in found]
    if found and missing:
        raise ShardError(
            f"{missing[0]}: no {missing[0].stem}_stats.json beside it, as other tars have, so img2dataset has not "
            "finished it; download it again, or move it away"
        )
    return found


def _index_all(tars: Sequence[Path], layout: Layout, processes: int) -> Iterator[_Indexed]:
    done = map_in_order(functools.partial(_indexer, layout), tars, max(1, min(processes, len(tars))))
    yield from progress(done, "index", total=len(tars), unit="tar")


def _indexer(layout: Layout) -> Callable[[Path], _Indexed]:
    return functools.partial(_index_tar, layout)


def _index_tar(layout: Layout, path: Path) -> _Indexed:
    found = scan(path, layout)
    if not found.samples:
        return _Indexed(path, None, found)
    language = None
    if layout.kind == "bitext":
        if len(found.languages) > 1:
            raise ShardError(
                f"{path}: pairs in {', '.join(sorted(found.languages))}; a shard of bitext has one language, so "
                "convert the corpus instead of indexing it"
            )
        [language] = found.languages
    write_atomic(index_path(path), found.packed)
    entry = ShardEntry(path.name, language, found.samples, path.stat().st_size, sha256(path))
    return _Indexed(path, entry, found._replace(packed=b""))


def _manifest(
    folder: Path, layout: Layout, done: Iterable[_Indexed], failures: dict[str, tuple[int, Counter[str]]]
) -> Manifest:
    entries = []
    counts: Counter[str] = Counter()
    dropped: Counter[tuple[str, str]] = Counter()
    for tar, entry, found in done:
        if tar.name in failures:
            successes, failed = failures[tar.name]
            if successes != found.seen:
                raise ShardError(
                    f"{tar}: {found.seen:,} samples, its statistics say {successes:,}; download the shard again"
                )
            dropped.update({("", reason): number for reason, number in failed.items()})
        if entry is not None:
            entries.append(entry)
        counts += found.languages
        dropped += found.dropped
    if not entries:
        reasons = ", ".join(f"{reason} {number:,}" for (_, reason), number in sorted(dropped.items()))
        raise ShardError(f"{folder}: no usable sample ({reasons or 'the tars are empty'}); name other places")
    return Manifest(
        kind=layout.kind,
        corpora=(layout.corpus,),
        shards=tuple(sorted(entries, key=lambda entry: (entry.language or "", entry.name))),
        counts=dict(sorted(counts.items())),
        dropped=tuple(
            Dropped(layout.corpus, language, reason, number) for (language, reason), number in sorted(dropped.items())
        ),
        layout=layout,
    )
