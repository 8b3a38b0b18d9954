"""Buffers of killed processes go, those that are in use stay."""

import os
import subprocess
import sys
import time

from optical_scale.engine.leftovers import abandoned_buffers, remove_abandoned_buffers

HOLD = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    held = mmap.mmap(file.fileno(), 0)
print("mapped", flush=True)
input()
"""


def buffer(folder, name, age=100.0):
    path = folder / f"deepspeed_allreduce_buffer_{name}"
    path.write_bytes(bytes(4096))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_only_what_nobody_uses_is_removed(tmp_path):
    used, young = buffer(tmp_path, "0_127.0.0.1_1_0"), buffer(tmp_path, "0_127.0.0.1_2_0", age=0)
    left = buffer(tmp_path, "0_127.0.0.1_3_1")
    other = tmp_path / "torch_1"
    other.write_bytes(b"x")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, used], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "mapped\n"
        os.utime(used, (time.time() - 100,) * 2)
        assert abandoned_buffers(tmp_path) == [left]
        remove_abandoned_buffers(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([used, young, other])
    finally:
        holder.kill()
        holder.communicate()
    assert abandoned_buffers(tmp_path) == [used], "a killed process uses nothing"


def test_a_folder_that_is_not_there_has_none(tmp_path):
    remove_abandoned_buffers(tmp_path / "none")
    assert abandoned_buffers(tmp_path / "none") == []
