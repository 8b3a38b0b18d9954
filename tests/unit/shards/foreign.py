"""Tars as other programs write them."""

import io
import json
import tarfile
from pathlib import Path

import webdataset
from PIL import Image


def picture(width: int = 20, height: int = 10, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, form)
    return buffer.getvalue()


def write_tar(path: Path, members, form=tarfile.PAX_FORMAT) -> Path:
    """Members as ``(name, content)``, or ready ``TarInfo`` without content, in order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # a broken number makes an extended header, as webdataset's does
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, caption: str = "A dog.", **fields) -> list[tuple[str, bytes | str]]:
    return [(f"{key}.jpg", picture()), (f"{key}.json", json.dumps({"url": "x"} | fields)), (f"{key}.txt", caption)]


def write_img2dataset(folder: Path, shards: int = 2, images: int = 3, failed: int = 1) -> Path:
    """As img2dataset 1.47 writes a folder, by the same library."""
    folder.mkdir(parents=True)
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"{shard:05d}.tar")) as writer:
            for i in range(images):
                key = f"{shard:05d}{i:04d}"
                meta = {"url": f"https://x/{i}", "caption": f"Dog {i} ☃", "key": key, "status": "success", "lang": "sw"}
                writer.write(
                    {"__key__": key, "jpg": picture(20 + i), "txt": f"Dog {i} ☃", "json": json.dumps(meta, indent=4)}
                )
        stats = {"count": images + failed, "successes": images, "failed_to_download": failed, "failed_to_resize": 0}
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats | {"status_dict": {"success": images}}))
        (folder / f"{shard:05d}.parquet").write_bytes(b"PAR1")
    return folder


def digests(folder):
    """The tars of a folder, byte by byte."""
    return {path.name: path.read_bytes() for path in folder.glob("*.tar")}
