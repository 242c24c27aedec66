"""At its first step a policy is its reference: with cached errors under bf16, too, the first loss is ln 2.

Both are the same model under the same arithmetic, so the tolerance is that of a logarithm in fp32 and not of bfloat16. One
rounding more in one layer of one of them moves a mean over N squares by about 2^-8 / sqrt(N) of itself, and the loss by
half of beta times that: .05 to .1 here, as DeepSpeed's linear layer did, and buffers in bfloat16.
"""

from importlib.util import find_spec

import numpy as np
import pytest

from actors.training.engines.engine import EngineOptions
from actors.training.launch import LocalSession, fit, here
from actors.training.trainer import read_curve, train
from infra.dag.stage import Resources
from pipelines.algorithms.preference.sft import SFT
from pipelines.models.adapter import Full, Start
from pipelines.training.arithmetic import Arithmetic
from support.training import SMALL, dpo, training, write_errors, write_world
from support.workers import one_after_another

TORCH = EngineOptions(kind="torch")
ENGINES = (("torch", 1), ("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3))
HALF, ZERO1, ZERO2, ZERO3 = (EngineOptions(kind=kind, zero=zero, bf16=True) for kind, zero in ENGINES)
FORMS = {"full": (Full(), False), "lora": (SMALL, False), "lora of lora": (SMALL, True), "full of lora": (Full(), True)}
CASES = {f"zero3 {form}": (ZERO3, *given) for form, given in FORMS.items()}
CASES |= {"zero1 full": (ZERO1, *FORMS["full"])}
CASES |= {f"torch {form}": (HALF, *FORMS[form]) for form in ("full", "lora of lora")}
if find_spec("bitsandbytes"):  # a base in four bits
    CASES |= {"torch lora on nf4": (HALF, SMALL, False, "nf4"), "zero2 lora of lora on nf4": (ZERO2, SMALL, True, "nf4")}
FAMILY = "wan"  # keeps some of its weights in fp32


@pytest.fixture(scope="module")
def first_steps(ray_session, tmp_path_factory):
    """By case the one row of the curve: four pairs on two workers, one pair a pass; errors are measured by fives."""
    root = tmp_path_factory.mktemp("first")
    write_world(root, family=FAMILY, pairs=4)
    options = {"steps": 2, "batch": 4, "learning_rate": 1e-2}
    before = training(root, engine=TORCH, family=FAMILY, method=SFT(), options=options)
    start = Start(here(train, before, folder=root / "sft", on_report=None) / "export", SMALL)
    known, jobs = {}, {}
    for name, (engine, adapter, goes_on, *base) in CASES.items():
        arithmetic = Arithmetic.of(engine, adapter, base=base[0] if base else "unquantised")
        # Nothing is added to the reference but the LoRA that it goes on from.
        added = SMALL if goes_on and adapter == SMALL else Full() if goes_on else None
        measured = (arithmetic, added, start if goes_on else None)
        if repr(measured) not in known:
            as_kept = dict(zip(("arithmetic", "adapter", "start"), measured, strict=True))
            known[repr(measured)] = write_errors(root, family=FAMILY, draws=1, **as_kept)
        jobs[name] = training(
            root,
            engine=engine,
            family=FAMILY,
            method=dpo(FAMILY, beta=500.0),
            adapter=adapter,
            start=measured[2],
            reference="cached",
            draws=1,
            errors=known[repr(measured)],
            arithmetic=arithmetic,
            options={"steps": 1, "batch": 4, "micro_batch": 1},
        )
    resources = Resources(workers=2)
    given = {"workers": 2, "storage": root, "resources": resources, "max_failures": 0, "on_report": None}
    checkpoint = fit(one_after_another, jobs, name="two", **given)
    return {name: read_curve(LocalSession(checkpoint.parent / name).checkpoint())[0] for name in jobs}


@pytest.mark.parametrize("name", CASES)
def test_the_first_loss_with_cached_errors_is_that_of_equal_models(first_steps, name):
    row = first_steps[name]
    assert row["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert row["error_drift"] == 0 and row["winner_error"] > 0.1
