"""The paper of an image: what it would show without its ink, shadows included.

Drawings and clean scans have paper of one tone, which the outermost pixels tell. Else it is estimated on a small copy,
because light changes slowly across a photo. What is low and enclosed by higher ground is ink, however thick: a flood
that drains over the image's edge finds it. So is what is low and thin: a morphological closing finds it, also where a
shadow's edge crosses the digit. This is done for dark ink and for bright; the right one leaves the smoother paper when
its ink is taken out, and little ink on the image's edge. What is to be done with the ink is in ``mnist_core.ink``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats: TypeAlias = npt.NDArray[np.float32]

# Lengths in cells of the small copy, or in fractions of its sides; 32 to 48 cells do equally well.
_GRID_SIDE: Final = 40
_SMALLEST_SIDE: Final = 4
_THIN_FRACTION: Final = 0.04
"""Half the width of a stroke that counts as thin, to the longer side."""
_EDGE_FRACTION: Final = 0.2
"""Half the length of an edge that the digit may cover where it touches it, to the shorter side."""
_SPREADS: Final = (1, 2, 4, 8, 16, 100)
_ENOUGH: Final = 0.1
"""Share of a cell's surroundings that must be without ink to tell its paper."""

_SHADED: Final = 3.0
"""Tones by which paper may differ from a smooth surface, before that surface is thought to be wrong."""
_FAINT: Final = 3.0
"""Tones of ink that are not worth the name."""
_INK_FRACTION: Final = 0.2
"""Depth of a cell that holds ink, to the deepest."""
_EDGE_COST: Final = 3.0
"""What ink on the image's edge costs, to unevenness of the paper; with 6, a grey border makes the paper ink."""
_FIT_ROUNDS: Final = 6

# Of a picture whose paper has one tone; depths, 0 of paper and 1 of ink. Measured on drawings, crops, scans and photos.
_FLAT: Final = 0.07
"""Depth that is still paper: noise and grain of a clean picture have less, a gradient of light has more."""
_CLEAN: Final = 0.85
"""Share of the outermost pixels that are paper or ink; where a digit is cut off, the others are its outline."""
_BEYOND: Final = 0.005
"""Share of pixels that may be on the other side of paper than ink: dust. If paper is half in shadow, ink is there."""
_BLURRED: Final = 1.5
"""Pixels half-way from paper to ink, to those of ink; an outline has that many in 8x8 pixels, and a soft light more."""


@dataclass(frozen=True, eq=False)
class Paper:
    """What an image would show without its ink.

    Attributes:
        ink_is_dark: Darker than the paper.
        tones: Of the paper, float32 (height, width).
        nearest: Of what paper is near that is most like ink: where ``tones`` are blurred, at the edge of a shadow, they
            differ.
    """

    ink_is_dark: bool
    tones: Floats
    nearest: Floats


def estimate_papers(tones: npt.NDArray[np.uint8]) -> Iterator[Paper]:
    """Estimate what an image would show without its ink.

    Args:
        tones: uint8 (height, width).

    Yields:
        The likelier paper; then, if there is a doubt, the one for ink that is bright instead of dark, or the reverse.
    """
    flat = _find_flat_paper(tones)
    if flat is not None:
        yield flat
        return
    small = shrink(Image.fromarray(tones))[0]
    surface = fit_surface(small[None])[0]
    edge = (..., *_edge_cells(small))
    if np.percentile(np.abs(small - surface)[edge], 80) > _SHADED:  # a shadow with an edge: no surface is fit for that
        surface = np.full_like(small, np.median(small[edge]))
    heights = np.stack([small - surface, surface - small])  # in which dark ink is low, and in which bright ink is
    grounds = _fill_in(heights, _find_ink(heights))
    papers = np.stack([surface + grounds[0], surface - grounds[1]])
    unevenness = sum(np.abs(np.diff(papers, n=2, axis=axis)).sum((1, 2)) for axis in (1, 2))
    edge_ink = np.maximum(grounds - heights, 0)[edge].sum(1)
    for chosen in np.argsort(unevenness + _EDGE_COST * edge_ink).tolist():
        lowest = (-1) ** chosen * -_raise(-grounds[chosen][None], 1)[0] + surface
        paper, nearest = (
            np.asarray(Image.fromarray(grid).resize(tones.shape[::-1], Image.Resampling.BILINEAR))
            for grid in (papers[chosen], lowest)
        )
        yield Paper(chosen == 0, paper, nearest)


def _find_flat_paper(tones: npt.NDArray[np.uint8]) -> Paper | None:
    """Find paper of one tone: what most of the outermost pixels have, if the others are ink and light falls evenly."""
    shares = np.array(Image.fromarray(tones).histogram()) / tones.size
    darkest, brightest = np.flatnonzero(shares)[[0, -1]].tolist()
    if darkest == brightest:
        return None
    edge = tones[_edge_cells(tones)]
    paper = int(np.median(edge))
    ink = darkest if paper - darkest > brightest - paper else brightest
    depths = (np.arange(256) - paper) / (ink - paper)  # of each tone
    clean = (np.abs(depths) <= _FLAT) | (depths >= 1 - 2 * _FLAT)
    inked, beyond = shares[depths >= 0.5].sum(), shares[depths < -2 * _FLAT].sum()
    blurred = shares[(depths > 2 * _FLAT) & (depths < 0.5)].sum()
    if clean[edge].mean() < _CLEAN or beyond > _BEYOND or blurred > _BLURRED * inked:
        return None
    sheet = np.full(tones.shape, paper, np.float32)
    return Paper(ink < paper, sheet, sheet)


def shrink(image: Image.Image) -> Floats:
    """Average an image over a grid of few cells: float32 (channels, rows, columns)."""
    scale = min(1.0, _GRID_SIDE / max(image.size))
    width, height = (max(_SMALLEST_SIDE, round(scale * side)) for side in image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float32)
    return small.reshape(height, width, -1).transpose(2, 0, 1)


def fit_surface(small: Floats) -> Floats:
    """Fit a quadratic surface to the edge of each channel, which is mostly paper, by least absolute differences.

    Args:
        small: float32 (channels, rows, columns).

    Returns:
        float32 of the same shape.
    """
    terms, edge = _terms(*small.shape[1:]), _edge_cells(small[0])
    on_edge, values = terms[edge], small[(slice(None), *edge)].astype(np.float64)
    weights = np.ones_like(values)
    for _ in range(_FIT_ROUNDS):  # of iteratively reweighted least squares
        weighted = weights[..., None] * on_edge
        normal = on_edge.T @ weighted + 1e-6 * np.eye(terms.shape[-1])
        coefficients = np.linalg.solve(normal, (weighted * values[..., None]).sum(1)[..., None])[..., 0]
        weights = 1 / np.maximum(np.abs(values - coefficients @ on_edge.T), 1)
    return np.asarray(np.einsum("ct,yxt->cyx", coefficients, terms), np.float32)


@lru_cache(maxsize=64)
def _terms(rows: int, columns: int) -> npt.NDArray[np.float64]:
    """1, x, y, x2, xy and y2 of each cell, (rows, columns, 6)."""
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)


def _edge_cells(grid: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the outermost cells, once around."""
    bottom, right = grid.shape[0] - 1, grid.shape[1] - 1
    down, along = np.arange(bottom), np.arange(right)
    rows = np.concatenate([np.zeros_like(along), down, np.full_like(along, bottom), bottom - down])
    columns = np.concatenate([along, np.full_like(down, right), right - along, np.zeros_like(down)])
    return rows, columns


def _find_ink(heights: Floats) -> npt.NDArray[np.bool_]:
    """Mark the cells that hold ink, and their neighbours; for each of (N, rows, columns) apart."""
    radius = max(1, round(_THIN_FRACTION * max(heights.shape)))
    closed = -_raise(-_raise(heights, radius), radius)
    depths = np.maximum(_flood(heights), closed) - heights
    deep = np.maximum(_INK_FRACTION * depths.max((1, 2), keepdims=True), _FAINT)
    return _raise((depths > deep).astype(np.float32), 1) > 0


def _raise(heights: Floats, radius: int) -> Floats:
    """Give each cell the greatest height within a disc."""
    rows, columns = heights.shape[1:]
    padded = np.pad(heights, ((0, 0), (radius, radius), (radius, radius)), constant_values=-np.inf)
    raised = heights.copy()
    for dy in range(2 * radius + 1):
        half = int((radius * (radius + 1) - (dy - radius) ** 2) ** 0.5)
        for dx in range(radius - half, radius + half + 1):
            np.maximum(raised, padded[:, dy : dy + rows, dx : dx + columns], out=raised)
    return raised


def _flood(heights: Floats) -> Floats:
    """Fill every basin up to the lowest way out over the image's edge (morphological reconstruction by erosion).

    Where the digit touches the edge, it would drain; so the edge is closed there first.
    """
    edged = np.pad(heights, ((0, 0), (1, 1), (1, 1)), mode="edge")
    edge = (slice(None), *_edge_cells(edged[0]))
    reach = max(1, int(_EDGE_FRACTION * min(heights.shape[1:])))
    edged[edge] = -_raise_around(-_raise_around(edged[edge], reach), reach)
    water = edged.copy()
    water[:, 1:-1, 1:-1] = np.inf
    while True:
        before = water[:, 1:-1, 1:-1].copy()
        for _ in range(4):
            lowest = np.minimum(np.minimum(water[:, :-2], water[:, 1:-1]), water[:, 2:])
            lowest = np.minimum(np.minimum(lowest[..., :-2], lowest[..., 1:-1]), lowest[..., 2:])
            np.maximum(lowest, heights, out=water[:, 1:-1, 1:-1])
        if np.array_equal(before, water[:, 1:-1, 1:-1]):
            return before


def _raise_around(edge: Floats, reach: int) -> Floats:
    """Give each cell of a closed line the greatest height within reach along it."""
    line = np.concatenate([edge[:, -reach:], edge, edge[:, :reach]], axis=1)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(line, 2 * reach + 1, axis=1).max(-1))


def _fill_in(heights: Floats, ink: npt.NDArray[np.bool_]) -> Floats:
    """Replace what lies under ink by the average of the nearest cells without (normalised convolution)."""
    known = (~ink).astype(np.float32)
    seen, filled, missing = heights * known, heights.copy(), ink.copy()
    for spread in _SPREADS:
        down, across = (_blur(side, spread) for side in heights.shape[1:])
        weights = down @ known @ across.T
        found = missing & (weights > _ENOUGH)
        filled[found] = (down @ seen @ across.T)[found] / weights[found]
        missing &= ~found
    filled[missing] = 0  # the surface itself
    return filled


@lru_cache(maxsize=256)
def _blur(side: int, spread: float) -> Floats:
    """A matrix that blurs along one side; each row has sum 1."""
    cells = np.arange(side)
    weights = np.exp(-((cells[:, None] - cells) ** 2) / (2 * spread**2))
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
