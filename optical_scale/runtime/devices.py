"""What the makers of GPUs promise."""

# Dense bf16 or fp16 matrix products with fp32 sums, in 1e12 operations per second; longer names first.
_PEAKS = {
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "A10": 125.0,
    "L4": 121.0,
    "V100": 125.0,
}


def peak_flops(name: str) -> float | None:
    """Operations per second of a device of this name in a 16-bit type; None if it is not in the list."""
    words = name.replace("-", " ").split()
    found = (peak for model, peak in _PEAKS.items() if all(word in words for word in model.split()))
    peak = next(found, None)
    return None if peak is None else peak * 1e12
