"""What is said of cloaks made with built-in models follows what was measured of them."""

from __future__ import annotations

from dataclasses import replace

from glaze_trt import demonstration, models

ENCODER = models.find("tiny", "encoder").manifest
PERCEPTUAL = models.find("tiny", "perceptual").manifest
REAL = replace(PERCEPTUAL, name="lpips-alex", demonstration=False)


def test_the_share_that_taesd_sees_is_the_manifests() -> None:
    for share, told in ((0.613, "61%"), (0.25, "25%")):
        measured = replace(ENCODER, measured={"cloaks": {"transfer": share}})
        note = demonstration.note([measured], PERCEPTUAL)
        assert note is not None
        assert f"TAESD, of which it is a copy, sees {told}" in note
        assert "glaze-trt export sd-vae" in note


def test_nothing_is_claimed_that_was_not_measured() -> None:
    note = demonstration.note([replace(ENCODER, measured={})], PERCEPTUAL)
    assert note is not None
    assert "TAESD" not in note
    assert "not measured" in note


def test_a_built_in_perceptual_net_beside_a_real_encoder_is_told_too() -> None:
    measured = replace(PERCEPTUAL, measured={"cloaks": {"lpips_squeeze_at_budget": 0.0444}})
    real = replace(ENCODER, name="sd-vae", demonstration=False)
    note = demonstration.note([real], measured)
    assert note is not None
    assert "LPIPS-squeeze says 0.044" in note
    assert demonstration.note([real], REAL) is None
