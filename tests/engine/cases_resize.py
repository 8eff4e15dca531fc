"""Resize: the modes torch writes, and the rest of the standard's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.nn.functional as F

from tests.engine.case import Builder, Case


def scaled(g: Builder, x: Any, scales: list[float], **attributes: Any) -> Any:
    return g.Resize(x, None, g.const(np.asarray(scales, np.float32)), **attributes)


def sized(g: Builder, x: Any, sizes: list[int], **attributes: Any) -> Any:
    return g.Resize(x, None, None, sizes, **attributes)


def torch_modes(up: tuple[int, int], label: str) -> list[Case]:
    """What `F.interpolate` exports to, from 6 by 8 to `up`."""
    cases = [
        Case(
            f"resize/{label} nearest",
            lambda g: sized(
                g,
                g.input("x", 2, 3, 6, 8),
                [2, 3, *up],
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            ),
            lambda x: F.interpolate(x, up),
        )
    ]
    for mode, name in (("linear", "bilinear"), ("cubic", "bicubic")):
        for aligned in (False, True):
            coordinates = "align_corners" if aligned else "pytorch_half_pixel"
            cases.append(
                Case(
                    f"resize/{label} {mode} {coordinates}",
                    lambda g, mode=mode, coordinates=coordinates: sized(
                        g,
                        g.input("x", 2, 3, 6, 8),
                        [2, 3, *up],
                        mode=mode,
                        coordinate_transformation_mode=coordinates,
                        cubic_coeff_a=-0.75,
                    ),
                    lambda x, name=name, aligned=aligned: F.interpolate(x, up, mode=name, align_corners=aligned),
                )
            )
    return cases


CASES = [
    Case(
        "resize/twice nearest, by scales",
        lambda g: scaled(
            g,
            g.input("x", 2, 3, 4, 5),
            [1, 1, 2, 2],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        lambda x: F.interpolate(x, scale_factor=2),
        opset=13,
    ),
    Case(
        "resize/nearest half_pixel, three times",
        lambda g: scaled(g, g.input("x", 1, 2, 4, 5), [1, 1, 3, 3], mode="nearest"),
        lambda x: F.interpolate(x, scale_factor=3, mode="nearest-exact"),
    ),
    Case(
        "resize/twice linear half_pixel, by scales",
        lambda g: scaled(g, g.input("x", 1, 3, 4, 5), [1, 1, 2, 2], mode="linear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        opset=18,
    ),
    *torch_modes((12, 16), "doubled"),
    *torch_modes((9, 11), "larger"),
    *torch_modes((4, 3), "smaller"),
    Case(
        "resize/one axis, linear",
        lambda g: scaled(g, g.input("x", 2, 3, 7), [1, 1, 2], mode="linear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    ),
    Case(
        "resize/three axes, linear",
        lambda g: sized(g, g.input("x", 1, 2, 3, 4, 5), [1, 2, 6, 8, 10], mode="linear"),
        lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"),
    ),
    Case(
        "resize/three axes, nearest",
        lambda g: scaled(
            g,
            g.input("x", 1, 2, 3, 4, 5),
            [1, 1, 2, 2, 2],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        lambda x: F.interpolate(x, scale_factor=2),
    ),
    Case(
        "resize/some axes",
        lambda g: g.Resize(g.input("x", 1, 2, 5, 6), None, None, [10, 9], mode="linear", axes=[2, 3]),
        lambda x: F.interpolate(x, (10, 9), mode="bilinear"),
        opset=18,
    ),
    *(
        Case(
            f"resize/antialias {mode}, outside excluded: {excluded}",
            lambda g, mode=mode, excluded=excluded: sized(
                g,
                g.input("x", 1, 2, 12, 15),
                [1, 2, 5, 6],
                mode=mode,
                antialias=1,
                cubic_coeff_a=-0.5,
                exclude_outside=excluded,
            ),
            (lambda x, mode=mode: F.interpolate(x, (5, 6), mode=f"bi{mode}", antialias=True)) if excluded else None,
            opset=19,
            as_written=not excluded,  # ONNX Runtime does not heed the two together
        )
        for mode in ("linear", "cubic")
        for excluded in (0, 1)
    ),
    *(
        Case(
            f"resize/nearest {coordinates} {rounding}",
            lambda g, coordinates=coordinates, rounding=rounding: sized(
                g,
                g.input("x", 1, 2, 5, 6),
                [1, 2, 8, 9],
                mode="nearest",
                coordinate_transformation_mode=coordinates,
                nearest_mode=rounding,
            ),
        )
        for coordinates, rounding in (
            ("half_pixel", "round_prefer_ceil"),
            ("align_corners", "round_prefer_floor"),
            ("asymmetric", "ceil"),
        )
    ),
    Case(
        "resize/cubic exclude_outside",
        lambda g: sized(g, g.input("x", 1, 2, 5, 6), [1, 2, 8, 9], mode="cubic", exclude_outside=1),
    ),
    Case(
        "resize/linear half_pixel_symmetric",
        lambda g: scaled(
            g,
            g.input("x", 1, 2, 5, 6),
            [1, 1, 1.5, 1.6],
            mode="linear",
            coordinate_transformation_mode="half_pixel_symmetric",
        ),
        opset=19,
    ),
]
