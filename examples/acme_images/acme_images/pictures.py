"""Thumbnails and sheets: plain functions, without any word of Celeriac."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

_BACKGROUND = "white"


def pictures_in(archive: IO[bytes]) -> Iterator[tuple[str, Image.Image | None]]:
    """Yield the name of each file in a ZIP with its picture, None for what is not one.

    Raises `zipfile.BadZipFile`.
    """
    with zipfile.ZipFile(archive) as files:
        for entry in files.infolist():
            if entry.is_dir():
                continue
            with files.open(entry) as stream:
                try:
                    yield entry.filename, Image.open(stream).convert("RGB")
                except (UnidentifiedImageError, OSError):
                    yield entry.filename, None


def shrink(picture: Image.Image, longest_px: int) -> Image.Image:
    """Return a copy whose longer side has at most `longest_px` pixels."""
    small = picture.copy()
    small.thumbnail((longest_px, longest_px))
    return small


def side_by_side(paths: list[Path], columns: int) -> Image.Image:
    """Return one picture with all in rows of `columns`, each in a cell as large as the largest."""
    pictures = []
    for path in paths:
        with Image.open(path) as opened:
            pictures.append(opened.convert("RGB"))
    width, height = max(one.width for one in pictures), max(one.height for one in pictures)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(pictures)), height * rows), _BACKGROUND)
    for index, one in enumerate(pictures):
        sheet.paste(one, (index % columns * width, index // columns * height))
    return sheet
