from __future__ import annotations

from dataclasses import replace

import pytest

from melange import InputError, ProfileChoice, Slo
from melange.planning.profile_source import load_profile

OTHER = Slo(tpot_s=0.04, tpot_definition="e2e_per_token")


def test_what_is_assumed_of_the_files_slo_is_assumed_of_no_other(small_spec):
    assert load_profile(small_spec).slo == small_spec.slo
    with pytest.raises(InputError, match=r"the workload assumes they keep .*120 ms.*, not .*40 ms"):
        load_profile(small_spec.with_slo(OTHER))
    assert load_profile(small_spec.with_slo(OTHER).with_slo(small_spec.slo)).slo == small_spec.slo
    stated = replace(small_spec, workload=replace(small_spec.workload, slo=OTHER))
    assert load_profile(stated).slo == OTHER


def test_the_profile_says_where_it_comes_from(small_spec):
    provenance = load_profile(small_spec).provenance
    assert (provenance["set"], provenance["reason"]) == ("melange-2024/llama-2-7b", "a test")


def test_an_unknown_set_is_placed_in_the_file(small_spec):
    spec = replace(
        small_spec, profiles=ProfileChoice(set="melange-2024/llama-9"), file="w.yaml", places={"profiles.set": (3, 8)}
    )
    with pytest.raises(InputError, match=r"^w\.yaml:3:8: "):
        load_profile(spec)


def test_nanoflow_that_nobody_measured_is_predicted_where_it_is_asked_for(small_spec):
    assert {key.engine for key in load_profile(small_spec).configs} == {"vllm"}
    both = load_profile(small_spec.with_engines(["vllm", "nanoflow"]))
    assert {key.engine for key in both.configs} == {"vllm", "nanoflow"}
