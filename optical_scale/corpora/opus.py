"""Bitext as OPUS publishes it: one zip archive with two aligned files, a licence and a README."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from optical_scale.corpora.moses import MosesCorpus
from optical_scale.corpora.reader import LeftOut, Member, check_language
from optical_scale.errors import CorpusError
from optical_scale.records import Record


@dataclass(frozen=True)
class OpusCorpus:
    """The two members of an OPUS archive in Moses format, such as ``Tanzil.en-sw.en`` and ``Tanzil.en-sw.sw``.

    Attributes:
        name: corpus name; keys are ``{name}-{language}-{line:08d}``.
        path: the archive, read in place.
        language: BCP-47 tag of the other side.
        code: how the archive writes that language, its last extension; empty: as ``language``.
        source_code: how it writes English.

    Raises:
        CorpusError: ``language`` is no tag.
    """

    name: str
    path: Path
    language: str
    code: str = ""
    source_code: str = "en"

    def __post_init__(self) -> None:
        check_language(self.language)

    @property
    def languages(self) -> tuple[str, ...]:
        """The one language beside English."""
        return (self.language,)

    def count(self) -> int:
        """Number of pairs, blank ones included.

        Raises:
            CorpusError: the archive cannot be read, does not hold two such members, or they differ in length.
        """
        return self._pair.count()

    def __iter__(self) -> Iterator[Record | LeftOut]:
        """Stream the pairs; errors as those of :class:`MosesCorpus`."""
        return iter(self._pair)

    @cached_property
    def _pair(self) -> MosesCorpus:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read ({error.strerror}); check the path") from None
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise CorpusError(f"{self.path}: not a sound zip archive ({error}); fetch it again") from None
        source, target = (self._member(names, code) for code in (self.source_code, self.code or self.language))
        return MosesCorpus(self.name, source, target, self.language)

    def _member(self, names: list[str], code: str) -> Member:
        found = [name for name in names if name.endswith(f".{code}")]
        if len(found) != 1:
            raise CorpusError(
                f"{self.path}: {len(found)} members end in .{code}; expected one. "
                f"It holds {', '.join(names[:8]) or 'nothing'}; give `code` if it writes the language otherwise"
            )
        return Member(self.path, found[0])
