"""What goes is what is worth least, within limits; and what a plan says beforehand holds for any weights."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kompress_api.stages.prune import Prune
from kompress_jobs.pruning.selection import SCHEDULES, Choice, Layer, build_layer, choose, cubic, extremes, linear, scopes


def layers(sizes: dict[str, int], **spec: object) -> list[Layer]:
    parsed = Prune.model_validate({"pruningRatio": 0.5, "roundTo": 1} | spec)
    return [build_layer(name, size, str(size), parsed, parsed.round_to) for name, size in sizes.items()]


def cut(chosen: Choice) -> dict[str, list[int]]:
    return {name: units.tolist() for name, units in chosen.cut.items()}


def test_local_takes_of_each_and_global_where_least_is_lost() -> None:
    worths = {"a": torch.tensor([4.0, 3.0, 2.0, 1.0]), "b": torch.tensor([40.0, 30.0, 20.0, 10.0])}
    sizes = {"a": 4, "b": 4}
    assert cut(choose(layers(sizes, scope="Local"), worths, 0.5)) == {"a": [2, 3], "b": [2, 3]}
    assert cut(choose(layers(sizes, maxPruningRatio=0.75), worths, 0.375)) == {"a": [1, 2, 3]}
    assert cut(choose(layers(sizes, maxPruningRatio=0.75), worths, 0.5)) == {"a": [1, 2, 3], "b": [3]}, "a has lost all that it may"


def test_isomorphic_ranks_layers_of_one_shape_together() -> None:
    worths = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([9.0, 9.0]), "c": torch.tensor([5.0, 6.0, 7.0, 8.0])}
    found = choose(layers({"a": 2, "b": 2, "c": 4}, scope="Isomorphic", maxPruningRatio=0.6), worths, 0.5)
    assert cut(found) == {"a": [0], "b": [0], "c": [0, 1]}


def test_what_is_left_is_a_multiple_of_round_to() -> None:
    worths = {"a": torch.arange(32.0)}
    assert cut(choose(layers({"a": 32}, roundTo=8), worths, 0.3)) == {"a": list(range(16))}
    assert cut(choose(layers({"a": 32}, roundTo=32), worths, 0.3)) == {}
    assert [layer.least for layer in layers({"a": 60}, roundTo=8, maxPruningRatio=0.7)] == [24]


def test_schedules_end_at_the_ratio() -> None:
    assert linear(0.5, 4) == [0, 0.125, 0.25, 0.375, 0.5]
    assert cubic(0.5, 2) == [0, 0.4375, 0.5]


@settings(max_examples=400, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    scope=st.sampled_from(["Local", "Global", "Isomorphic"]),
    ratio=st.floats(0.05, 0.95),
    limit=st.floats(0.1, 0.95),
    round_to=st.integers(1, 9),
    steps=st.integers(1, 4),
    schedule=st.sampled_from(sorted(SCHEDULES)),
    lopsided=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_no_weights_lead_out_of_the_range_that_was_planned(sizes, scope, ratio, limit, round_to, steps, schedule, lopsided, seed) -> None:
    made = layers({str(i): size for i, size in enumerate(sizes)}, scope=scope, maxPruningRatio=limit, roundTo=round_to)
    fewest, most = extremes(made, ratio, ratio, steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        scale = 1000.0 if lopsided else 1.5  # lopsided: the first layer loses all before the next loses any
        worths = {layer.name: torch.rand(layer.size, generator=generator).add(0.1) * scale ** int(layer.name) for layer in made}
        for name, units in choose(made, worths, SCHEDULES[schedule](ratio, steps)[step + 1]).cut.items():
            layer = next(layer for layer in made if layer.name == name)
            layer.size -= len(units)
            assert layer.size >= layer.least and (layer.size % round_to == 0 or layer.size == layer.least)
    lost = {layer.name: layer.initial - layer.size for layer in made}
    assert all(fewest[name] <= count <= most[name] for name, count in lost.items()), (fewest, lost, most)
    for _, members in scopes(made):
        if len(members) == 1:
            assert fewest[members[0].name] == most[members[0].name] == lost[members[0].name], "alone in its scope it is exact"
