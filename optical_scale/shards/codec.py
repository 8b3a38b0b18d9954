"""One record <-> the bytes of its tar members. Bytes depend on the record alone: no clock, no user, no machine."""

import json
import math
import re
import tarfile
from typing import Any

from optical_scale.errors import ShardError
from optical_scale.records import Box, Caption, CaptionedImage, Phrase, Record, TextPair

KEY = re.compile(r"[0-9a-z_-]{1,90}")
"""What a key may be: a dot would cut it for webdataset; USTAR names end at 100 bytes."""

_LANGUAGE = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
_BLOCK = tarfile.BLOCKSIZE
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)

_EMPTY = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
"""Header of a file without name and content; TarInfo's defaults are time 0, owner 0 and mode 644."""

_OWNER, _TIME, _REST, _SUM = _EMPTY[100:124], _EMPTY[135:148], _EMPTY[154:], int(_EMPTY[148:154], 8)


def encode(record: Record) -> bytes:
    """Tar members of one sample: ``{key}.json``, before it ``{key}.jpg`` or ``{key}.png`` for an image.

    Raises:
        ShardError: the key or the language is unsafe, the image extension unknown, or the text has no UTF-8 form.
    """
    if not KEY.fullmatch(record.key):
        raise ShardError(
            f"key {record.key!r} of corpus {record.corpus!r} is unsafe in a shard; expected 1 to 90 characters out of "
            "[0-9a-z_-] (a dot or a slash would make webdataset merge samples)"
        )
    if isinstance(record, TextPair):
        if not _LANGUAGE.fullmatch(record.language):  # it becomes part of a file name
            raise ShardError(f"{record.key}: {record.language!r} is no BCP-47 tag; expected for example sw or pt-BR")
        fields: dict[str, Any] = {"language": record.language, "source": record.source, "target": record.target}
        fields |= _list_fields(record)
        members = []
    else:
        if record.extension not in ("jpg", "png"):
            raise ShardError(f"{record.key}: image extension {record.extension!r}; expected jpg or png")
        fields = _image_fields(record)
        members = [_member(f"{record.key}.{record.extension}", record.image)]
    text = _JSON.encode(fields | {"corpus": record.corpus})
    try:
        members.append(_member(f"{record.key}.json", text.encode("utf-8")))
    except UnicodeEncodeError as error:
        raise ShardError(f"{record.key}: the text has no UTF-8 form ({error}); repair it in the corpus") from None
    return b"".join(members)


def _list_fields(pair: TextPair) -> dict[str, Any]:
    """Negatives and scores; pairs without any have no such fields."""
    if pair.scores and len(pair.scores) != 1 + len(pair.negatives):
        raise ShardError(
            f"{pair.key}: {len(pair.scores)} scores for a passage and {len(pair.negatives)} negatives; expected "
            f"{1 + len(pair.negatives)} or none"
        )
    if not all(map(math.isfinite, pair.scores)):
        raise ShardError(f"{pair.key}: scores {pair.scores}; expected finite numbers")
    found = {"negatives": list(pair.negatives), "scores": list(pair.scores)}
    return {name: values for name, values in found.items() if values}


def _image_fields(record: CaptionedImage) -> dict[str, Any]:
    """Ids that a source does not have are left out."""
    named = {"image_id": record.image_id, "split": record.split}
    return {name: value for name, value in named.items() if value} | {
        "width": record.width,
        "height": record.height,
        "captions": [
            {
                "language": caption.language,
                "text": caption.text,
                "phrases": [
                    {"entity": phrase.entity, "kind": phrase.kind, "start": phrase.start, "end": phrase.end}
                    for phrase in caption.phrases
                ],
            }
            | ({"id": caption.id} if caption.id else {})
            for caption in record.captions
        ],
        "regions": {
            entity: [[box.left, box.top, box.right, box.bottom] for box in boxes]
            for entity, boxes in record.regions.items()
        },
    }


def _member(name: str, content: bytes) -> bytes:
    """Header, content and padding; the header is what ``TarInfo.tobuf`` takes ten times as long to make.

    Name and size are all that differs between headers. The checksum is the sum of all bytes, its own field as blanks.
    """
    named = name.encode("ascii")
    size = b"%011o" % len(content)
    total = b"%06o" % (_SUM + sum(named) + sum(size) - len(size) * 0x30)
    if len(named) > 100 or len(size) > 11:
        raise ShardError(f"{name}: {len(content):,} bytes do not fit a tar member; the limit is 8 GiB")
    header = (named.ljust(100, b"\0"), _OWNER, size, _TIME, total, _REST)
    return b"".join((*header, content, bytes(-len(content) % _BLOCK)))


def decode(data: bytes) -> Record:
    """Inverse of :func:`encode`.

    Raises:
        ValueError: the bytes are not one sample of ours (the caller knows shard and sample and says so).
    """
    members: dict[str, bytes] = {}
    keys: set[str] = set()
    position = 0
    while position < len(data):
        header = data[position : position + _BLOCK]
        if header[257:262] != b"ustar":
            raise ValueError("bad tar header")
        # The caller compared a checksum of all bytes, so the two fields of interest are read without tarfile's tests,
        # which take longer than reading the sample.
        name, size = header[:100].partition(b"\0")[0].decode("ascii"), int(header[124:135], 8)
        key, _, extension = name.partition(".")
        content = data[position + _BLOCK : position + _BLOCK + size]
        if len(content) != size:
            raise ValueError(f"{name} is cut short")
        keys.add(key)
        members[extension] = content
        position += _BLOCK + size + -size % _BLOCK
    if len(keys) != 1 or "json" not in members:
        raise ValueError(f"members {sorted(members)} of keys {sorted(keys)} are not one sample")
    return _to_record(keys.pop(), members)


def _to_record(key: str, members: dict[str, bytes]) -> Record:
    fields = json.loads(members.pop("json"))
    try:
        if not members:
            return TextPair(
                key,
                fields["language"],
                fields["source"],
                fields["target"],
                fields["corpus"],
                tuple(fields.get("negatives", ())),
                tuple(fields.get("scores", ())),
            )
        [(extension, image)] = members.items()
        return CaptionedImage(
            key=key,
            image=image,
            extension=extension,
            width=fields["width"],
            height=fields["height"],
            captions=tuple(
                Caption(
                    item["language"],
                    item["text"],
                    tuple(Phrase(**phrase) for phrase in item["phrases"]),
                    item.get("id", ""),
                )
                for item in fields["captions"]
            ),
            regions={entity: tuple(Box(*corners) for corners in boxes) for entity, boxes in fields["regions"].items()},
            corpus=fields["corpus"],
            image_id=fields.get("image_id", ""),
            split=fields.get("split", ""),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"fields of {key}.json do not fit: {error!r}") from None
