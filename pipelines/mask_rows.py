"""Rows of masks: the photo, its regions over it, and the classes that they have.

A class has one colour in a whole picture, and in every picture where a model has no more classes than there are
colours. Regions carry the number of their class in the list and have visible borders, so that no two must be told
apart by colour alone; ignored pixels are striped.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int64, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from relabel.labels.mask import Mask

from .drawing import FAINT, INK, OTHER, RULE, PreviewSample, backdrop, draw_image, write
from .wording import percent, short_name, shortened

NUM_LISTED = 5
NOTE = (
    "A class has one colour in all rows, and the number that it has in its row's list. Grey: a class not listed; "
    "striped: ignored, because too unsure."
)
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#332288", "#f0e442", "#882255", "#999933",
)  # fmt: skip
"""Okabe and Ito's colours and, for more classes, three of Tol's: told apart with any colour vision."""
DRAWN_PIXELS = 480
"""Of the longer side of a drawn mask: about what a panel has."""
STRENGTH = 0.66
"""Opacity of a class's colour."""
STRIPE = 6
COARSE, ROOM = 4, 2
"""Middles are sought among every fourth pixel, and numbers stand where so many of these lie around one."""
LINE = 0.092
"""Of a list, in its height."""
NOTHING = -1
"""In `regions`: ignored."""


def class_colours(ids: Iterable[int]) -> dict[int, str]:
    """One colour per class, of the ids given first their own: `PALETTE[id]`, or the next that is still free."""
    colours: dict[int, str] = {}
    for index in ids:
        wished = [PALETTE[(index + step) % len(PALETTE)] for step in range(len(PALETTE))]
        colours[index] = next((colour for colour in wished if colour not in colours.values()), wished[0])
    return colours


def draw_rows(rows: Sequence[Sequence[Axes]], samples: Sequence[PreviewSample]) -> None:
    """One row of three panels per sample; a class has one colour in all of them."""
    masks = [mask_of(sample) for sample in samples]
    colours = class_colours(in_order_of_share(masks))
    for panels, sample, mask in zip(rows, samples, masks, strict=True):
        listed = [index for index, _ in mask.top(NUM_LISTED)]
        draw_image(panels[0], sample.image)
        regions = np.where(mask.map == mask.ignore_index, NOTHING, mask.map.astype(np.int64))
        draw_regions(panels[1], sample.image, regions, {index: colours[index] for index in listed})
        draw_list(panels[2], sample, mask, {index: colours[index] for index in listed})
    for axes, text in zip(rows[0], ("photo", "mask", "classes of the pixels"), strict=True):
        axes.set_title(text, loc="left", color=FAINT, size=9.5, pad=7)


def mask_of(sample: PreviewSample) -> Mask:
    assert isinstance(sample.label, Mask)
    return sample.label


def in_order_of_share(masks: Sequence[Mask]) -> list[int]:
    """The classes that are listed anywhere, that with the most pixels first."""
    shares: dict[int, float] = {}
    for mask in masks:
        for index, share in mask.top(NUM_LISTED):
            shares[index] = shares.get(index, 0.0) + share
    return sorted(shares, key=lambda index: (-shares[index], index))


def draw_regions(
    axes: Axes,
    image: UInt8[np.ndarray, "height width 3"],
    regions: Int64[np.ndarray, "y x"],
    colours: Mapping[int, str],
) -> None:
    """The photo in grey under the classes' colours, with borders, and each class's place in `colours` as a number."""
    height, width = image.shape[:2]
    scale = DRAWN_PIXELS / max(height, width)
    shape = (max(1, round(height * scale)), max(1, round(width * scale)))
    drawn = resampled(regions, shape)
    axes.imshow(painted(resampled(backdrop(image), shape), drawn, colours), interpolation="antialiased")
    axes.set_axis_off()
    axes.set_anchor("NW")
    for number, (index, colour) in enumerate(colours.items(), start=1):
        place = middle(drawn == index)
        if place is not None:
            axes.text(
                place[1], place[0], str(number), size=8, weight="bold", color=ink_on(colour), ha="center", va="center",
                bbox={"boxstyle": "circle,pad=0.22", "facecolor": colour, "edgecolor": "white", "linewidth": 0.8},
            )  # fmt: skip


def resampled(pixels: Shaped[np.ndarray, "y x ..."], shape: tuple[int, int]) -> Shaped[np.ndarray, "height width ..."]:
    """The pixel that lies at the middle of each new one."""
    sides = zip(shape, pixels.shape[:2], strict=True)
    rows, columns = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in sides)
    chosen: Shaped[np.ndarray, "height width ..."] = pixels[rows[:, None], columns]
    return chosen


def painted(
    grey: UInt8[np.ndarray, "y x 3"], regions: Int64[np.ndarray, "y x"], colours: Mapping[int, str]
) -> UInt8[np.ndarray, "y x 3"]:
    """Classes in their colours, others grey, ignored pixels striped, a line wherever the class changes."""
    paint = np.full((*regions.shape, 3), to_rgb(OTHER))
    for index, colour in colours.items():
        paint[regions == index] = to_rgb(colour)
    rows, columns = np.indices(regions.shape)
    stripes = np.where((rows + columns) // STRIPE % 2, 0.98, 0.45)
    ignored = regions == NOTHING
    paint[ignored] = stripes[ignored, None]
    mixed = paint * STRENGTH + grey / 255 * (1 - STRENGTH)
    border = borders(regions)
    mixed[borders_widened(border)] = 1.0
    mixed[border] = to_rgb(INK)
    return (mixed * 255).astype(np.uint8)


def borders(regions: Int64[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Pixels whose right or lower neighbour has another class."""
    found = np.zeros(regions.shape, np.bool_)
    found[:-1] |= regions[:-1] != regions[1:]
    found[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    return found


def borders_widened(border: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """With the pixels beside them."""
    return ~eroded(~border)


def eroded(inside: Bool[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """Without the pixels that have an outside neighbour."""
    padded = np.pad(inside, 1, mode="edge")
    kept: Bool[np.ndarray, "y x"] = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return kept


def middle(inside: Bool[np.ndarray, "y x"]) -> tuple[float, float] | None:
    """(y, x) of a pixel deep inside the largest part; None where no part has room for a number."""
    coarse = inside[COARSE // 2 :: COARSE, COARSE // 2 :: COARSE]
    deep, depth = np.zeros_like(coarse), 0
    deep[1:-1, 1:-1] = coarse[1:-1, 1:-1]
    while (deeper := eroded(deep)).any():
        deep, depth = deeper, depth + 1
    if depth < ROOM:
        return None
    rows, columns = np.nonzero(deep)
    nearest = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    return float(COARSE * rows[nearest] + COARSE // 2), float(COARSE * columns[nearest] + COARSE // 2)


def ink_on(colour: str) -> str:
    """Black or white, whichever is read better on it."""
    return INK if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.55 else "white"


def draw_list(axes: Axes, sample: PreviewSample, mask: Mask, colours: Mapping[int, str]) -> None:
    """Title, old label where there is one, one bar per listed class, then what the others and the ignored have."""
    axes.set(xlim=(0, 1), ylim=(1, 0))
    axes.set_axis_off()
    write(axes, 0.0, 0.055, shortened(sample.title, 60), color=FAINT, size=9)
    top = 0.15
    if sample.old_label is not None:
        write(axes, 0.0, 0.165, "old", color=FAINT, size=9)
        write(axes, 0.06, 0.165, shortened(short_name(sample.old_label), 40), size=12)
        top = 0.27
    axes.plot((0.0, 0.99), (top, top), color=RULE, linewidth=1)
    write(axes, 0.80, top + 0.065, "pixels", color=FAINT, size=8, ha="right")
    write(axes, 0.99, top + 0.065, "confidence", color=FAINT, size=8, ha="right")
    shares = dict(mask.top(len(mask.classes)))
    confidence = dict(zip(mask.classes.tolist(), mask.confidence.tolist(), strict=True))
    for number, (index, colour) in enumerate(colours.items(), start=1):
        y = top + 0.16 + LINE * (number - 1)
        draw_entry(axes, y, shortened(short_name(sample.class_names[index]), 28), shares[index], colour, str(number))
        write(axes, 0.99, y, percent(confidence[index]), color=FAINT, ha="right")
    others = [share for index, share in shares.items() if index not in colours]
    draw_rest(axes, top + 0.16 + LINE * len(colours), others, 1.0 - sum(shares.values()))


def draw_rest(axes: Axes, y: float, others: Sequence[float], ignored: float) -> None:
    if others:
        name = f"{len(others)} other class{'es' if len(others) > 1 else ''}"
        draw_entry(axes, y, name, sum(others), OTHER)
        y += LINE
    if ignored > 1e-6:
        draw_entry(axes, y, "ignored", ignored, "white", hatch="//////")


def draw_entry(
    axes: Axes, y: float, name: str, share: float, colour: str, number: str = "", hatch: str | None = None
) -> None:
    """Swatch, name, bar and share of the pixels, on the line `y`; a bar's full length is the whole image."""
    draw_swatch(axes, y, colour, number, hatch)
    write(axes, 0.055, y, name)
    edge = FAINT if hatch else colour
    axes.add_patch(
        Rectangle((0.42, y - 0.024), 0.26 * share, 0.048, facecolor=colour, edgecolor=edge, hatch=hatch, linewidth=0.4)
    )
    write(axes, 0.80, y, percent(share), ha="right")


def draw_swatch(axes: Axes, y: float, colour: str, number: str = "", hatch: str | None = None) -> None:
    """A class's colour with its number, at the beginning of a line of a list."""
    edge = FAINT if hatch else colour
    axes.add_patch(
        Rectangle((0.0, y - 0.036), 0.034, 0.072, facecolor=colour, edgecolor=edge, hatch=hatch, linewidth=0.8)
    )
    axes.text(0.017, y + 0.003, number, size=7.5, weight="bold", color=ink_on(colour), ha="center", va="center")
