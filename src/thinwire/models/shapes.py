"""What pooling does to an image, and which images are too small for it."""

from __future__ import annotations

from thinwire.errors import ConfigError


def pooled(model: str, shape: tuple[int, ...], pools: int) -> tuple[int, int, int]:
    """Shape of (channels, height, width) images after `pools` poolings by 2, each rounding down.

    >>> pooled("lenet", (1, 28, 28), pools=2)
    (1, 7, 7)

    Raises:
        ConfigError: inputs are not images, or nothing is left of them; `model` is named in the message.
    """
    if len(shape) != 3:
        raise ConfigError("model", model, f"takes images (channels, height, width), not inputs of shape {shape}")
    channels, height, width = shape
    least = 2**pools
    if min(height, width) < least:
        raise ConfigError("model", model, f"needs images of at least {least}x{least}, not {height}x{width}")
    return channels, height // least, width // least
