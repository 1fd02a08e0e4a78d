"""Pictures of fields: renders at any size, PNG files, contact sheets, animations, heat maps of weights.

Pictures are float32 in [0, 1], (N, H, W, C) with C = 1 or 3. A picture with a NaN or infinity (of a diverged field) is
drawn as a crossed box, so that it cannot be taken for a black one.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fields import layout
from fields.model import FieldConfig, values
from fields.runtime.resources import free_memory
from fields.runtime.runs import write_atomic
from fields.signals.images import grid

TILE = (56, 84)  # pixels that the longer side of a picture should take on a sheet
FRAME = 2  # width of a neighbour's frame
GAP = 6  # white after a pair, so that it is seen as one
ORANGE = (0.90, 0.45, 0.0)
RED = (200, 30, 30)
CAPTION = 13  # pixels of a line of text
SHEET_LIMIT = 1 << 28  # values of a sheet, 1 GiB of float32
STRIP = 1 << 18  # pixels whose coordinates are held at once
WORKING = 320 << 20  # bytes for coordinates, encodings and hidden activations of one strip


def render(config: FieldConfig, weights: Tensor, height: int, width: int) -> Tensor:
    """Render fields as pictures, strip by strip, so that only the result has to fit in memory.

    Args:
        weights: (N, P).
    Returns:
        (N, H, W, C) float32 in [0, 1]; NaN where a field's weights are not finite.
    Raises:
        ValueError: if the pictures would not fit in free memory, or the field does not have 2 coordinates.
    """
    layout.check_weights(config, weights)
    grid(config, height, width, rows=(0, 0))  # refuses impossible sizes and fields of other dimensions
    _check_memory(config, len(weights), height, width, weights.device)
    out = torch.empty(len(weights), height, width, config.out_dim, device=weights.device)
    rows = max(1, STRIP // width)
    with torch.no_grad():
        weights = weights.detach().to(torch.float32)
        broken = ~weights.isfinite().all(1)
        for top in range(0, height if len(weights) else 0, rows):
            strip = (top, min(height, top + rows))
            coords = grid(config, height, width, rows=strip).to(weights.device)
            out[:, strip[0] : strip[1]] = values(config, weights, coords).unflatten(1, (-1, width))
        out[broken] = math.nan  # an infinite weight may saturate into an innocent-looking picture
    return out.clamp_(0, 1)


def _check_memory(config: FieldConfig, n: int, height: int, width: int, device: torch.device) -> None:
    """Refuse what would not fit, before the system kills the process."""
    pixels = n * height * width * config.out_dim
    strip = max(1, STRIP // width) * width * n * config.out_dim  # one strip's values, before they are put in place
    need = 4 * (pixels + min(pixels, strip)) + min(WORKING, 4 * 8 * config.encoded_dim * height * width)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()
    if need > free:
        raise ValueError(
            f"{n:,} pictures of {height} x {width} (height x width) need about {need / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free. Render fewer at once, or smaller ones."
        )


def to_uint8(images: Tensor) -> Tensor:
    """[0, 1] -> 0 .. 255, rounded; values outside are clamped, NaN becomes 0."""
    if images.dtype == torch.uint8:
        return images
    return (images.detach().to(torch.float32).nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """A picture (H, W), (H, W, 1) or (H, W, 3) for PIL; one that is not finite as a crossed box."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise ValueError(f"a picture must have shape (H, W), (H, W, 1) or (H, W, 3), got {tuple(image.shape)}.")
    image = image.detach().cpu()
    if image.is_floating_point() and not bool(image.isfinite().all()):
        image = crossed(*image.shape[:2])
    pixels = to_uint8(image).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def crossed(height: int, width: int) -> Tensor:
    """A red crossed box, (H, W, 3), in place of a picture that does not exist."""
    box = Image.new("RGB", (width, height), (250, 225, 225))
    draw = ImageDraw.Draw(box)
    draw.rectangle((0, 0, width - 1, height - 1), outline=RED)
    draw.line((0, 0, width - 1, height - 1), fill=RED)
    draw.line((0, height - 1, width - 1, 0), fill=RED)
    return _from_pil(box)


def _from_pil(picture: Image.Image) -> Tensor:
    """(H, W, 3) float32."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).to(torch.float32) / 255


def save_png(path: Path, image: Tensor) -> None:
    """Write a picture of shape (H, W), (H, W, 1) or (H, W, 3), values in [0, 1]; an interrupted write leaves no file."""
    picture = to_pil(image)
    with write_atomic(Path(path)) as temporary:
        picture.save(temporary, format="PNG")


def save_gif(path: Path, frames: Tensor | Sequence[Tensor], *, fps: float = 10, scale: float | None = None) -> None:
    """Write an animation that repeats.

    Args:
        frames: (F, H, W, C), or F pictures of one size.
        fps: frames per second, at most 50.
        scale: enlargement; None = as on a sheet.
    """
    if not len(frames):
        raise ValueError("an animation needs at least one frame, got none.")
    if not 0 < fps <= 50:
        raise ValueError(f"fps must lie above 0 and not above 50 (browsers slow down faster animations), got {fps}.")
    if len({tuple(f.shape) for f in frames}) > 1:
        raise ValueError(f"all frames must have one shape, got {sorted({tuple(f.shape) for f in frames})[:5]}.")
    pictures = [to_pil(_tile(f, _scale(f.shape[0], f.shape[1], scale))) for f in frames]
    with write_atomic(Path(path)) as temporary:
        first, rest = pictures[0], pictures[1:]
        first.save(
            temporary, format="GIF", save_all=True, append_images=rest, duration=durations(len(pictures), fps), loop=0
        )


def durations(count: int, fps: float) -> list[int]:
    """Milliseconds of each frame of a GIF, which counts in hundredths of a second: together they last as long as asked for."""
    ends = [round(100 * (i + 1) / fps) for i in range(count)]
    return [10 * (end - begin) for begin, end in zip([0, *ends], ends, strict=False)]


def webp(frames: Sequence[Tensor], *, fps: float = 10) -> bytes:
    """An animation that repeats, as the bytes of a WebP file: for a page, where a GIF's 256 colours would show.

    Args:
        frames: pictures (H, W, 1 or 3) of one size.
        fps: frames per second.
    """
    first, *rest = [to_pil(frame).convert("RGB") for frame in frames]
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=80)
    return file.getvalue()


def _scale(height: int, width: int, scale: float | None) -> float:
    """The enlargement asked for, or the whole number that brings the longer side into TILE; large pictures shrink."""
    longest = max(height, width)
    if scale is None:
        return max(1, math.ceil(TILE[0] / longest)) if longest <= TILE[1] else TILE[1] / longest
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be above 0, got {scale}.")
    return scale


def _tile(image: Tensor, scale: float) -> Tensor:
    """A picture as (h, w, 3): enlarged with hard pixels, shrunk by averaging; crossed if not finite."""
    image = (image[..., None] if image.ndim == 2 else image).detach().cpu()
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"a picture must have shape (H, W, 1) or (H, W, 3), got {tuple(image.shape)}.")
    image = image.to(torch.float32) / 255 if image.dtype == torch.uint8 else image.to(torch.float32)
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    if not bool(image.isfinite().all()):
        return crossed(height, width)
    image = image.clamp(0, 1).expand(-1, -1, 3).permute(2, 0, 1)[None]  # (1, 3, H, W)
    image = F.interpolate(image, (height, width), mode="nearest-exact" if scale >= 1 else "area")
    return image[0].permute(1, 2, 0)


def sheet(
    images: Tensor,
    columns: int,
    *,
    scale: float | None = None,
    pad: int = 2,
    neighbours: Tensor | None = None,
    captions: Sequence[str] | None = None,
) -> Tensor:
    """Many pictures on one white sheet, row by row.

    Args:
        images: (N, H, W, C).
        columns: pictures per row.
        scale: enlargement; None = about 56 to 84 pixels for the longer side of a picture.
        pad: white pixels around each picture.
        neighbours: (N, H', W', C) drawn in an orange frame at the right of each picture.
        captions: N short texts under the pictures; what does not fit is cut off.
    Returns:
        (H'', W'', 3) float32 in [0, 1].
    """
    if not len(images) or columns < 1:
        raise ValueError(f"a sheet needs at least one picture and one column, got {len(images)} and {columns}.")
    for what, given in (("neighbours", neighbours), ("captions", captions)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"{what} must be as many as the pictures ({len(images)}), got {len(given)}.")
    scale = _scale(images.shape[1], images.shape[2], scale)
    height, width = _cell_size(images, neighbours, captions, scale)
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    total = (pad + rows * (height + pad), pad + columns * (width + pad))
    if math.prod(total) * 3 > SHEET_LIMIT:
        raise ValueError(
            f"a sheet of {len(images):,} pictures would have {total[0]:,} x {total[1]:,} pixels. Draw fewer or smaller."
        )
    page = torch.ones(*total, 3)
    for i in range(len(images)):
        cell = _cell(images[i], None if neighbours is None else neighbours[i], scale, height, width)
        if captions is not None:
            cell[height - CAPTION :] = caption(captions[i], width)
        y, x = pad + (i // columns) * (height + pad), pad + (i % columns) * (width + pad)
        page[y : y + height, x : x + width] = cell
    return page


def _cell_size(
    images: Tensor, neighbours: Tensor | None, captions: Sequence[str] | None, scale: float
) -> tuple[int, int]:
    """Height and width of one place on a sheet: picture, neighbour in its frame, caption."""
    height, width = (max(1, round(side * scale)) for side in images.shape[1:3])
    if neighbours is not None:
        other = [max(1, round(side * scale)) for side in neighbours.shape[1:3]]
        height, width = max(height, other[0]) + 2 * FRAME, width + other[1] + 3 * FRAME + GAP
    return height + (0 if captions is None else CAPTION), width


def _cell(image: Tensor, neighbour: Tensor | None, scale: float, height: int, width: int) -> Tensor:
    """(height, width, 3): a picture, and its neighbour in a frame."""
    cell, tile = torch.ones(height, width, 3), _tile(image, scale)
    edge = 0 if neighbour is None else FRAME  # both stand on one line
    cell[edge : edge + tile.shape[0], : tile.shape[1]] = tile
    if neighbour is not None:
        other = _tile(neighbour, scale)
        left = tile.shape[1] + FRAME
        cell[: other.shape[0] + 2 * FRAME, left : left + other.shape[1] + 2 * FRAME] = torch.tensor(ORANGE)
        cell[FRAME : FRAME + other.shape[0], left + FRAME : left + FRAME + other.shape[1]] = other
    return cell


def caption(text: str, width: int) -> Tensor:
    """(CAPTION, width, 3): one line of text, cut to the width."""
    line = Image.new("RGB", (width, CAPTION), "white")
    draw, font = ImageDraw.Draw(line), ImageFont.load_default()
    text = str(text).split("\n")[0].encode("latin-1", "replace").decode("latin-1")  # what the built-in font can write
    while text and draw.textlength(text, font=font) > width:
        text = text[:-1]
    draw.text((0, 0), text, fill=(60, 60, 60), font=font)
    return _from_pil(line)


def weight_map(config: FieldConfig, row: Tensor) -> Tensor:
    """A field's weights as heat maps, one per layer side by side: matrix (out x in), bias as the last column.

    Blue is negative, red positive, white zero; each layer has its own scale; gray is not finite.

    Args:
        row: (P,) or (1, P).
    Returns:
        (H, W, 3) float32 in [0, 1].
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers = layout.split(config, row.detach().cpu().to(torch.float32).reshape(1, -1))
    colours = colormaps["RdBu_r"].with_extremes(bad="gray")
    figure = Figure(figsize=(2 + 2.6 * len(layers), 3.2), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    shares = [max(fan_in + 1, 4) for fan_in in config.widths[:-1]]
    for i, (axes, (weight, bias)) in enumerate(
        zip(np.atleast_1d(figure.subplots(1, len(layers), width_ratios=shares)), layers, strict=True)
    ):
        matrix = torch.cat([weight[0], bias[0][:, None]], dim=1)  # (out, in + 1)
        finite = matrix[matrix.isfinite()].abs()
        bound = max(float(finite.max()) if len(finite) else 0.0, 1e-12)
        shown = np.ma.masked_invalid(matrix.numpy())
        drawn = axes.imshow(shown, cmap=colours, vmin=-bound, vmax=bound, interpolation="nearest", aspect="auto")
        axes.axvline(weight.shape[2] - 0.5, color="black", linewidth=0.8)
        axes.set_title(f"layer {i}: {weight.shape[2]} -> {weight.shape[1]}, bias", fontsize=8)
        axes.tick_params(labelsize=6)
        axes.locator_params(integer=True, min_n_ticks=1)  # one row has one tick
        figure.colorbar(drawn, ax=axes).ax.tick_params(labelsize=6)
    canvas.draw()
    return torch.from_numpy(np.array(canvas.buffer_rgba())[..., :3]).to(torch.float32) / 255
