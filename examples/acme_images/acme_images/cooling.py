"""A rod that cools: explicit finite differences of the heat equation, in plain Python."""


def hot_in_the_middle(cell_count: int) -> list[float]:
    """Return the temperatures at the start: 1 in the middle cell, 0 elsewhere."""
    cells = [0.0] * cell_count
    cells[cell_count // 2] = 1.0
    return cells


def cooled(cells: list[float]) -> list[float]:
    """Return the temperatures one step later; both ends stay at 0."""
    inner = [(left + 2 * here + right) / 4 for left, here, right in zip(cells, cells[1:], cells[2:], strict=False)]
    return [0.0, *inner, 0.0]
