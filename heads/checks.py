"""The contract of a head, as code that anyone can run on a head of their own."""

import tempfile
from pathlib import Path

import keras
import numpy as np

from configs.fields import options_model
from heads.builder import build_head
from heads.registry import HEADS


def check_head(name: str) -> None:
    """Checks that a registered head keeps its contract.

    Raises:
        AssertionError: If it does not; the text says which rule is broken.
    """
    if not __debug__:
        raise RuntimeError("python -O leaves the assertions of this check out. Run it without -O.")
    spec = HEADS.get(name)
    options = options_model(spec.build).model_fields
    missing = [option for option, info in options.items() if info.is_required()]
    assert not missing, f"{name}: without a default: {', '.join(missing)}"

    maps = np.random.default_rng(0).normal(size=(4, 3, 3, 8)).astype("float32")
    features = keras.Input(maps.shape[1:])
    output = build_head(name, features)
    assert len(output.shape) == 2, f"{name}: its output has rank {len(output.shape)}, not 2"

    model = keras.Model(features, keras.layers.Dense(2)(output))
    before = model.predict(maps, verbose=0)
    assert np.isfinite(before).all(), f"{name}: its output holds NaN or infinity"
    model.compile("sgd", "mse")
    model.fit(maps, np.ones((4, 2)), verbose=0)
    after = model.predict(maps, verbose=0)
    assert not np.array_equal(before, after), f"{name}: a training step changes nothing"

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "head.keras"
        model.save(path)
        loaded = keras.saving.load_model(path, safe_mode=True)
    np.testing.assert_allclose(
        loaded.predict(maps, verbose=0),
        after,
        rtol=1e-5,
        atol=1e-5,
        err_msg=f"{name}: a saved head computes something else",
    )
