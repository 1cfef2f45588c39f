"""Files of images as samples: square, RGB, 8 bit.

A set that is small decoded lies in memory; a larger one is decoded batch by batch.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from kompress_api.places import Dataset
from kompress_jobs.samples.encoded import THREADS, Encoded, File, Medium, Source, opened
from kompress_jobs.samples.splits import Data

IN_MEMORY_BYTES = 512 * 2**20
"""Decoded bytes of all splits up to which they are kept in memory (each process holds its own copy)."""
DEFAULT_SIZE = 224
SIZES_READ = 2048
"""Images whose header is read to see whether all have one size."""
IMAGES = Medium("image", frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}))


def decoded(encoded: Encoded, dataset: Dataset) -> Data:
    """Files of images as samples."""
    size = dataset.image_size or own_size(encoded.sampled(SIZES_READ))
    keep = len(encoded) * 3 * size * size <= IN_MEMORY_BYTES
    splits, unreadable = encoded.decoded(functools.partial(decode, size=size), functools.partial(gather, size=size), keep=keep)
    return Data(encoded.classes, **splits, image_size=size, channels=3, unreadable=unreadable)


def own_size(files: Sequence[File]) -> int:
    """The side of the images where the first ones are square and of one size, else 224."""
    from PIL import Image

    def size_of(file: File) -> tuple[int, int] | None:
        try:
            with Image.open(opened(file)) as image:
                return image.size
        except unreadable():
            return None

    sizes: set[tuple[int, int]] = set()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="headers") as pool:
        for size in pool.map(size_of, files):
            sizes |= {size} if size else set()
            if len(sizes) > 1:
                pool.shutdown(cancel_futures=True)
                return DEFAULT_SIZE
    width, height = next(iter(sizes), (0, 1))
    return width if width == height else DEFAULT_SIZE


def decode(file: Source, size: int) -> torch.Tensor | None:
    """An image file as RGB (3, size, size), uint8: shorter side resized, centre cropped. None when it can't be read."""
    import numpy
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
            return torch.from_numpy(numpy.array(fitted)).permute(2, 0, 1)
    except unreadable():
        return None


def unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises for damaged files, and for those that promise more pixels than a computer has room for."""
    from PIL import Image

    return OSError, ValueError, SyntaxError, Image.DecompressionBombError


def gather(images: list[torch.Tensor], size: int) -> torch.Tensor:
    """Images as one tensor, (images, 3, size, size)."""
    return torch.stack(images) if images else torch.zeros(0, 3, size, size, dtype=torch.uint8)
