"""What a plan keeps of measurements: curves, and the engine's limits by its own arguments and KV cache."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from melange.catalog.hardware import figures_of, load_catalog
from melange.errors import InputError
from melange.files.records import from_plain, to_plain
from melange.measurements.curve import MIN_POINTS, MeasuredCurve, measured_curves, told_settings
from melange.measurements.file import Header, KvCache, MeasurementFile
from melange.measurements.measurement import LatencyStats, Measurement
from melange.perfmodel.calibrate import calibrate, group_points
from melange.perfmodel.fill import modelled_engine
from melange.perfmodel.hardware import ModelledEngine, kv_capacity_tokens
from melange.serving.config import ConfigKey
from melange.serving.engine_args import settings_from_args
from melange.serving.engine_settings import default_settings

KEY = ConfigKey("llama-3.1-8b", "L4", 1, "bf16", "vllm")
L4 = load_catalog().gpu("L4")
LLAMA = load_catalog().model("llama-3.1-8b")


def point(loop: str = "open", **changes: object) -> Measurement:
    values: dict[str, object] = {
        **KEY._asdict(),
        "input_tokens": 64,
        "output_tokens": 32,
        "loop": loop,
        "achieved_rps": 2.0,
        "concurrency": 3.0,
        "tpot_decode_s": LatencyStats(mean=0.03, p99=0.05),
        "ttft_s": LatencyStats(mean=0.1),
        "samples": 50,
    }
    return Measurement(**{**values, **changes})  # type: ignore[arg-type]


def file_of(*points: Measurement, **told: object) -> MeasurementFile:
    return MeasurementFile(path="f", headers=(Header(**KEY._asdict(), **told),), points=points)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--max-num-seqs", "16"], "max_num_seqs", 16),
        (["--max-num-batched-tokens=4096"], "max_batched_tokens", 4096),
        (["--max-model-len", "8k"], "max_model_len_tokens", 8000),
        (["--max-model-len", "8K"], "max_model_len_tokens", 8192),
        (["--max-model-len", "auto"], "max_model_len_tokens", None),
        (["--block-size", "32"], "block_tokens", 32),
        (["--gpu-memory-utilization", "0.8"], "memory_fraction", 0.8),
        (["--kv-cache-dtype", "fp8_e4m3"], "kv_bytes_per_element", 1.0),
        (["--no-enable-chunked-prefill"], "chunked_prefill", False),
        (["--max-num-seqs", "4000"], "max_batched_tokens", 4000),
    ],
)
def test_an_engines_arguments_set_its_limits(args, field, value):
    settings = settings_from_args(args, gpu=L4)
    assert getattr(settings, field) == value
    assert settings_from_args([], gpu=L4) == default_settings(L4)


def test_an_argument_that_is_no_number_is_named():
    with pytest.raises(InputError, match="--max-num-seqs is 'many'"):
        settings_from_args(["--max-num-seqs", "many"], gpu=L4)


def test_a_curve_keeps_valid_measured_points_with_latencies_and_survives_a_plan():
    kept = [point(), point("closed"), point(saturated=True)]
    left_out = [
        point(valid=False),
        point(source="estimated"),
        point("capacity", tpot_decode_s=None, ttft_s=None),
        point(achieved_rps=0.0),
    ]
    (curve,) = measured_curves([file_of(*kept, *left_out)])
    assert len(curve.points) == len(kept)
    assert curve.engine_settings is None
    again = from_plain(MeasuredCurve, json.loads(json.dumps(to_plain(curve))), "curve")
    assert again == curve
    assert again.points[0].tpot_decode_s == 0.03
    assert again.deciding[0] == point(tpot_decode_s=LatencyStats(mean=0.03), ttft_s=LatencyStats(mean=0.1), samples=0)
    assert measured_curves([file_of(*left_out)]) == ()


def test_limits_come_from_the_newest_header_of_the_same_configuration():
    old = Header(**KEY._asdict(), engine_command=("vllm", "serve", "--max-num-seqs", "8"))
    new = Header(
        **KEY._asdict(),
        engine_command=("vllm", "serve", "--max-num-seqs", "16"),
        max_model_len_tokens=2048,
        kv_cache=KvCache(tokens=262144, block_tokens=128),
    )
    other = Header(**KEY._replace(gpu="H100")._asdict(), engine_command=("--max-num-seqs", "4"))
    (curve,) = measured_curves([MeasurementFile(path="f", headers=(old, new, other), points=(point(),))])
    limits = curve.engine_settings
    assert limits is not None
    assert (limits.max_num_seqs, limits.max_model_len_tokens, limits.block_tokens) == (16, 2048, 128)
    modelled = ModelledEngine(model=load_catalog().model(KEY.model), gpu=L4, precision="bf16", settings=limits)
    assert kv_capacity_tokens(modelled) == 262144


def test_poisson_points_decide_where_there_are_enough():
    (few,) = measured_curves([file_of(point(), point("closed"))])
    assert [p.loop for p in few.deciding] == ["open", "closed"]
    (enough,) = measured_curves([file_of(*[point()] * MIN_POINTS, point("closed"))])
    assert [p.loop for p in enough.deciding] == ["open"] * MIN_POINTS


def test_a_damaged_curve_is_refused():
    (curve,) = measured_curves([file_of(point())])
    row = to_plain(curve)
    for damage, told in (
        ({"points": [[1, 2]]}, r"points\[0\]"), ({"columns": []}, "unknown key 'columns'"), ({"points": 3}, "points"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"curve: {told}"):
            from_plain(MeasuredCurve, {**row, **damage}, "curve")
    with pytest.raises(InputError, match="curve: gpu is missing"):
        from_plain(MeasuredCurve, {"model": "m"}, "curve")


def test_a_headers_model_shape_is_checked_where_it_is_read():
    with pytest.raises(InputError, match="model_shape of a measurements' header: layers: expected `int`, got `str`"):
        measured_curves([file_of(point(), model_shape={**figures_of(LLAMA), "layers": "many"})])
    (curve,) = measured_curves([file_of(point(), model_shape=figures_of(LLAMA))])
    assert curve.model_shape == replace(LLAMA, aliases=(), source="")


def test_calibration_and_fill_take_the_limits_that_headers_tell():
    points = [
        point(input_tokens=float(i), output_tokens=float(o), achieved_rps=rate)
        for i in (64, 512)
        for o in (32, 128)
        for rate in (1.0, 2.0)
    ]
    cache = KvCache(tokens=32768, block_tokens=16)
    file = file_of(*points, engine_command=("--max-num-seqs", "16"), kv_cache=cache)
    told = told_settings([file])
    (group,) = group_points(points, settings=told)
    assert (group.modelled.engine.max_num_seqs, kv_capacity_tokens(group.modelled)) == (16, 32768)
    result = calibrate(points, name="limits", settings=told)
    assert result.settings is not None
    assert (result.settings.max_num_seqs, result.settings.kv_cache_tokens) == (16, None)
    catalog = load_catalog()
    assert modelled_engine(KEY, points, result, catalog, told[KEY]).engine == told[KEY]
    assert modelled_engine(KEY, points, result, catalog).engine == result.settings
