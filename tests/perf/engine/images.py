"""Digits as image files, for tools that read folders."""

from pathlib import Path


def write_digits(root: Path, *, side: int, each: int, suffix: str = ".jpg") -> Path:
    """<root>/{train,validation,test}/<digit>/<number>: `each` images of a digit for training, an eighth of that for the others."""
    from PIL import Image
    from sklearn.datasets import load_digits

    raw = load_digits()
    for digit in range(10):
        images = raw.images[raw.target == digit]
        held = each // 8
        for split, start, count in (("train", 0, each), ("validation", each, held), ("test", each + held, held)):
            folder = root / split / str(digit)
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = (images[(start + number) % len(images)] * (255 / 16)).astype("uint8")
                Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR).convert("RGB").save(folder / f"{number}{suffix}")
    return root
