"""The README's segmenter of one's own: found by its path, labelled and drawn by `try`."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.trying import try_recipe


@pytest.mark.usefixtures("forget_plugins")
def test_a_segmenter_of_ones_own(demo_shards: Path, root: Path, tmp_path: Path) -> None:
    recipe = {
        "source": f"{demo_shards}/*.tar",
        "plugins": [str(root / "tests" / "plugins" / "tones.py")],
        "steps": [{"tones": {"model": "tones", "input_size": 256, "confidence": 0.7}}],
        "store": str(tmp_path / "none"),
    }
    tried = try_recipe(recipe, limit=4, out=tmp_path / "tones.png")
    assert (tmp_path / "tones.png").stat().st_size > 10_000
    assert list(tried.trial.class_names("tones")) == ["dark", "middling", "bright"]
    masks = [labels["tones"] for labels in tried.trial.labels]
    assert len(masks) == 4
    for mask in masks:
        assert set(np.unique(mask.map)) <= {0, 1, 2, 255}
        assert len(np.unique(mask.map)) > 1
