"""Convolutions, plain and transposed: axes, strides, dilations, groups, padding of every kind."""

from __future__ import annotations

import torch.nn.functional as F

from tests.engine.case import Case

CONV = [
    Case(
        "conv/plain",
        lambda g: g.Conv(g.input("x", 2, 3, 9, 7), g.weight(4, 3, 3, 3), g.weight(4), pads=[1, 1, 1, 1]),
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
    ),
    Case(
        "conv/stride 2 padded after only",
        lambda g: g.Conv(g.input("x", 1, 3, 8, 10), g.weight(5, 3, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]),
        lambda x, w: F.conv2d(F.pad(x, (0, 1, 0, 1)), w, stride=2),
    ),
    Case(
        "conv/stride 2 odd size",
        lambda g: g.Conv(g.input("x", 1, 3, 9, 11), g.weight(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        opset=13,
    ),
    Case(
        "conv/stride 4 kernel 11, rows unread",
        lambda g: g.Conv(g.input("x", 1, 3, 26, 29), g.weight(4, 3, 11, 11), strides=[4, 4], pads=[2, 2, 2, 2]),
        lambda x, w: F.conv2d(x, w, stride=4, padding=2),
    ),
    Case(
        "conv/patches",
        lambda g: g.Conv(g.input("x", 1, 3, 8, 12), g.weight(6, 3, 4, 4), g.weight(6), strides=[4, 4]),
        lambda x, w, b: F.conv2d(x, w, b, stride=4),
    ),
    Case(
        "conv/pointwise stride 2",
        lambda g: g.Conv(g.input("x", 1, 4, 7, 8), g.weight(6, 4, 1, 1), strides=[2, 2]),
        lambda x, w: F.conv2d(x, w, stride=2),
    ),
    Case(
        "conv/pointwise stride 2 groups",
        lambda g: g.Conv(g.input("x", 1, 4, 7, 8), g.weight(6, 2, 1, 1), strides=[2, 2], group=2),
        lambda x, w: F.conv2d(x, w, stride=2, groups=2),
    ),
    Case(
        "conv/groups",
        lambda g: g.Conv(g.input("x", 2, 6, 5, 6), g.weight(9, 2, 3, 3), pads=[1, 1, 1, 1], group=3),
        lambda x, w: F.conv2d(x, w, padding=1, groups=3),
    ),
    Case(
        "conv/groups stride 2",
        lambda g: g.Conv(g.input("x", 1, 6, 8, 8), g.weight(9, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], group=3),
        lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=3),
    ),
    Case(
        "conv/depthwise stride 2",
        lambda g: g.Conv(g.input("x", 1, 5, 8, 8), g.weight(5, 1, 5, 5), strides=[2, 2], pads=[2, 2, 2, 2], group=5),
        lambda x, w: F.conv2d(x, w, stride=2, padding=2, groups=5),
    ),
    Case(
        "conv/dilation",
        lambda g: g.Conv(g.input("x", 1, 2, 9, 9), g.weight(3, 2, 3, 3), dilations=[2, 3], pads=[2, 3, 2, 3]),
        lambda x, w: F.conv2d(x, w, dilation=(2, 3), padding=(2, 3)),
    ),
    Case(
        "conv/dilation and stride",
        lambda g: g.Conv(
            g.input("x", 1, 2, 12, 13), g.weight(3, 2, 3, 3), dilations=[2, 3], strides=[2, 2], pads=[2, 1, 0, 3]
        ),
        lambda x, w: F.conv2d(F.pad(x, (1, 3, 2, 0)), w, dilation=(2, 3), stride=2),
    ),
    Case(
        "conv/unequal strides",
        lambda g: g.Conv(g.input("x", 1, 2, 9, 8), g.weight(3, 2, 3, 2), strides=[3, 1], pads=[1, 1, 1, 0]),
        lambda x, w: F.conv2d(F.pad(x, (1, 0, 1, 1)), w, stride=(3, 1)),
    ),
    Case(
        "conv/padding wider than the kernel",
        lambda g: g.Conv(g.input("x", 1, 2, 5, 5), g.weight(3, 2, 3, 3), pads=[3, 4, 3, 2]),
        lambda x, w: F.conv2d(F.pad(x, (4, 2, 3, 3)), w),
    ),
    Case(
        "conv/one axis",
        lambda g: g.Conv(g.input("x", 2, 3, 11), g.weight(4, 3, 4), g.weight(4), strides=[3], pads=[2, 1]),
        lambda x, w, b: F.conv1d(F.pad(x, (2, 1)), w, b, stride=3),
    ),
    Case(
        "conv/one axis, stride 1, groups",
        lambda g: g.Conv(g.input("x", 2, 4, 11), g.weight(4, 2, 3), dilations=[2], group=2),
        lambda x, w: F.conv1d(x, w, dilation=2, groups=2),
        opset=18,
    ),
    Case(
        "conv/three axes",
        lambda g: g.Conv(g.input("x", 1, 2, 5, 6, 4), g.weight(3, 2, 3, 3, 3), pads=[1, 1, 1, 1, 1, 1]),
        lambda x, w: F.conv3d(x, w, padding=1),
    ),
    Case(
        "conv/three axes, strides, groups",
        lambda g: g.Conv(
            g.input("x", 1, 4, 5, 6, 4), g.weight(4, 2, 2, 3, 3), strides=[2, 2, 1], pads=[0, 1, 1, 0, 1, 1], group=2
        ),
        lambda x, w: F.conv3d(x, w, stride=(2, 2, 1), padding=(0, 1, 1), groups=2),
    ),
    *(
        Case(
            f"conv/auto_pad {mode} stride {stride}",
            lambda g, mode=mode, stride=stride: g.Conv(
                g.input("x", 1, 2, 8, 9), g.weight(3, 2, 3, 4), auto_pad=mode, strides=[stride, stride]
            ),
        )
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
        for stride in (1, 2)
    ),
    Case(
        "conv/bias from an input",
        lambda g: g.Conv(g.input("x", 1, 2, 4, 4), g.weight(3, 2, 3, 3), g.input("b", 3)),
        lambda x, w, b: F.conv2d(x, w, b),
    ),
]

CONV_TRANSPOSE = [
    Case(
        "conv_transpose/plain",
        lambda g: g.ConvTranspose(g.input("x", 2, 4, 5, 6), g.weight(4, 3, 3, 3), g.weight(3), pads=[1, 1, 1, 1]),
        lambda x, w, b: F.conv_transpose2d(x, w, b, padding=1),
    ),
    Case(
        "conv_transpose/stride 2",
        lambda g: g.ConvTranspose(
            g.input("x", 1, 4, 5, 6), g.weight(4, 3, 4, 4), g.weight(3), strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
        opset=13,
    ),
    Case(
        "conv_transpose/stride 2 output_padding",
        lambda g: g.ConvTranspose(
            g.input("x", 1, 4, 5, 6), g.weight(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
        ),
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
    ),
    Case(
        "conv_transpose/kernel equals stride",
        lambda g: g.ConvTranspose(g.input("x", 1, 4, 3, 3), g.weight(4, 3, 2, 2), g.weight(3), strides=[2, 2]),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
    ),
    Case(
        "conv_transpose/kernel smaller than stride",
        lambda g: g.ConvTranspose(g.input("x", 1, 4, 3, 3), g.weight(4, 3, 1, 1), g.weight(3), strides=[2, 2]),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
    ),
    Case(
        "conv_transpose/groups, strides, dilations, output_padding",
        lambda g: g.ConvTranspose(
            g.input("x", 1, 4, 4, 5),
            g.weight(4, 3, 3, 2),
            g.weight(6),
            strides=[2, 3],
            dilations=[2, 1],
            pads=[1, 0, 1, 0],
            output_padding=[1, 2],
            group=2,
        ),
        lambda x, w, b: F.conv_transpose2d(
            x, w, b, stride=(2, 3), dilation=(2, 1), padding=(1, 0), output_padding=(1, 2), groups=2
        ),
    ),
    Case(
        "conv_transpose/groups stride 2",
        lambda g: g.ConvTranspose(g.input("x", 1, 4, 4, 5), g.weight(4, 3, 3, 3), g.weight(6), strides=[2, 2], group=2),
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, groups=2),
    ),
    Case(
        "conv_transpose/one axis",
        lambda g: g.ConvTranspose(g.input("x", 2, 3, 7), g.weight(3, 2, 5), g.weight(2), strides=[3], pads=[1, 1]),
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=3, padding=1),
    ),
    Case(
        "conv_transpose/three axes",
        lambda g: g.ConvTranspose(g.input("x", 1, 3, 3, 2, 4), g.weight(3, 2, 2, 3, 3), strides=[2, 2, 2]),
        lambda x, w: F.conv_transpose3d(x, w, stride=2),
    ),
    Case(
        "conv_transpose/auto_pad SAME_UPPER",
        lambda g: g.ConvTranspose(
            g.input("x", 1, 3, 4, 4), g.weight(3, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"
        ),
    ),
    Case(
        "conv_transpose/output_shape",
        lambda g: g.ConvTranspose(g.input("x", 1, 3, 4, 4), g.weight(3, 2, 3, 3), strides=[2, 2], output_shape=[8, 8]),
        lambda x, w: F.conv_transpose2d(x, w, stride=2)[..., 1:, 1:],
    ),
]

CASES = CONV + CONV_TRANSPOSE
