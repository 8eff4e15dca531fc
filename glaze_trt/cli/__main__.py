"""`python -m glaze_trt.cli`, the same as `glaze-trt`."""

from __future__ import annotations

from glaze_trt.cli import main

if __name__ == "__main__":
    main()
