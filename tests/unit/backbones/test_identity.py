from optical_scale.backbones.identity import weights_digest


def folder(path, weights, config="{}"):
    path.mkdir()
    (path / "model.safetensors").write_bytes(weights)
    (path / "config.json").write_text(config, encoding="utf-8")
    (path / "README.md").write_text(str(path), encoding="utf-8")
    return path


def test_tells_weights_and_configurations_apart_and_nothing_else(tmp_path):
    weights = bytes(range(256)) * 8192
    same, again = folder(tmp_path / "a", weights), folder(tmp_path / "b", weights)
    assert weights_digest(same) == weights_digest(again)
    changed = bytearray(weights)
    changed[-1] ^= 1
    others = [folder(tmp_path / "c", bytes(changed)), folder(tmp_path / "d", weights, config='{"x": 1}')]
    others.append(folder(tmp_path / "e", weights + b"\0"))
    assert len({weights_digest(path) for path in (same, *others)}) == 4
