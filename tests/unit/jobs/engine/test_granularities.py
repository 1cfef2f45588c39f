"""Every granularity, on models as users have them: smaller by what was asked, and the same again from its history."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import nn

from kompress_api.errors import MethodRefused
from kompress_api.stages.prune import Prune
from kompress_jobs.measure import size
from kompress_jobs.modules import structure
from kompress_jobs.pruning.recovery import Methods
from kompress_jobs.samples import Inputs

IMAGES = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)
TEXT = (torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0)), torch.ones(2, 8, dtype=torch.int64))
SOUND = (torch.rand(2, 800, generator=torch.Generator().manual_seed(0)),)
MODELS: dict[str, tuple[Callable[[int], nn.Module], Inputs]] = {
    "Convolutional": (tiny_models.Convolutional, IMAGES),
    "Residual": (tiny_models.Residual, IMAGES),
    "Grouped": (tiny_models.Grouped, IMAGES),
    "vit": (tiny_models.vit, IMAGES),
    "TransformersVit": (tiny_models.TransformersVit, IMAGES),
    "torchvision_vit": (tiny_models.torchvision_vit, (IMAGES[0].expand(2, 3, 8, 8),)),
    "Bert": (tiny_models.Bert, TEXT),
    "Wav2Vec2": (tiny_models.Wav2Vec2, SOUND),
}
TRANSFORMERS = ["vit", "TransformersVit", "Bert", "Wav2Vec2"]
PAIRS = [
    *((granularity, model) for granularity in ("Weight", "NM", "Channel") for model in MODELS),
    *(("Head", model) for model in TRANSFORMERS),
    *(("Layer", model) for model in ["Residual", "torchvision_vit", *TRANSFORMERS]),
]
SHARES: dict[str, dict[str, Any]] = {"Weight": {"sparsity": 0.5}, "NM": {"pattern": "2:4"}}
REBUILD = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import load_file, load_model, save_file
from kompress_jobs.modules import structure
from kompress_jobs.modules.history import replay
from test_granularities import MODELS
torch.set_num_threads(1)
folder = Path(sys.argv[1])
for name, history in json.loads((folder / "histories.json").read_text()).items():
    make, sample = MODELS[name.partition("-")[2]]
    model = replay(make(10), history, sample)
    load_model(model, str(folder / f"{name}.safetensors"), strict=True)
    with torch.no_grad():
        save_file({"outputs": model.eval()(*sample)}, folder / f"{name}.outputs")
"""


def build(name: str) -> tuple[nn.Module, Inputs]:
    make, sample = MODELS[name]
    torch.manual_seed(0)
    return make(10).eval(), sample


def pruner(model: nn.Module, sample: Inputs, granularity: str, **spec: Any) -> Any:
    own = {"granularity": granularity, "importance": "L1", "roundTo": 4} | SHARES.get(granularity, {"pruningRatio": 0.5}) | spec
    if {"constraints", "search"} & spec.keys():
        own.pop("pruningRatio", None)
    parsed = Prune.model_validate(own)
    module = Methods.of(parsed, field="p")
    return module.granularity.Pruner(model, sample, module.importance, parsed, structure.head_of(model, sample), field="p")


def pruned(name: str, granularity: str, ratio: float = 0.5, **spec: Any) -> tuple[nn.Module, Any]:
    model, sample = build(name)
    made = pruner(model, sample, granularity, **spec)
    made.apply(made.choose(made.worths(), ratio))
    return model, made


def test_a_clean_process_makes_each_of_them_again_bit_by_bit(tmp_path: Path) -> None:
    histories, outputs = {}, {}
    for granularity, name in PAIRS:
        model, made = pruned(name, granularity, scope="Local")
        with torch.no_grad():  # a second step, so that positions have moved
            made.apply(made.choose(made.worths(), 0.6))
        key = f"{granularity}-{name}"
        histories[key] = [made.change()]
        save_model(model, str(tmp_path / f"{key}.safetensors"))
        with torch.no_grad():
            outputs[key] = model.eval()(*MODELS[name][1])
    (tmp_path / "histories.json").write_text(json.dumps(histories))
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(tiny_models.__file__).parent)]!r}\n{REBUILD}"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=300)
    for key, expected in outputs.items():
        assert torch.equal(load_file(tmp_path / f"{key}.outputs")["outputs"], expected), key


@pytest.mark.parametrize(("granularity", "name"), [pair for pair in PAIRS if pair[0] not in SHARES])
def test_a_structural_cut_makes_a_smaller_model_that_can_be_trained(granularity: str, name: str) -> None:
    model, made = pruned(name, granularity)
    whole, sample = build(name)
    assert size.parameters(model) < size.parameters(whole)
    assert size.macs(model, sample) < size.macs(whole, sample)
    model.train()(*sample).logsumexp(1).sum().backward()
    assert made.removed() and all(before > now for before, now in made.removed().values())


@pytest.mark.parametrize(("granularity", "name"), [pair for pair in PAIRS if pair[0] not in SHARES])
def test_a_trial_is_what_the_cut_would_be_and_leaves_the_model_alone(granularity: str, name: str) -> None:
    model, sample = build(name)
    made = pruner(model, sample, granularity)
    cut = made.choose(made.worths(), 0.5)
    with torch.no_grad():
        before = model(*sample)
        trial = made.trial(cut.cut).eval()(*sample)
        assert torch.equal(model(*sample), before)
        made.apply(cut)
        assert torch.equal(model.eval()(*sample), trial)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_a_head_without_a_voice_goes_and_nothing_changes(name: str) -> None:
    model, sample = build(name)
    made = pruner(model, sample, "Head", pruningRatio=0.25, scope="Local")
    silent = 2
    for attending in made.attentions.values():
        joined = model.get_submodule(attending.output)
        width = joined.in_features // attending.heads
        with torch.no_grad():
            joined.weight[:, silent * width : (silent + 1) * width] = 0
            for layer, times in attending.rows():
                layer.weight.view(times, attending.heads, width, -1)[:, silent] *= 1e-3
    with torch.no_grad():
        expected = model(*sample)
        made.apply(made.choose(made.worths(), 0.25))
        assert [heads for _, heads in made.steps] == [[silent]] * len(made.steps)
        assert torch.allclose(model(*sample), expected, atol=1e-5)
    assert set(map(tuple, made.removed().values())) == {(4, 3)}


@pytest.mark.parametrize("name", ["Convolutional", "vit", "Bert"])
def test_channels_without_a_voice_go_and_nothing_changes(name: str) -> None:
    """What is coupled goes together: a wrong position would show in the outputs."""
    model, sample = build(name)
    made = pruner(model, sample, "Channel")
    silent = {layer.name: torch.arange(0, layer.size, 4) for layer in made.layers}
    with torch.no_grad():
        for root, units in silent.items():
            layer = model.get_submodule(root)
            layer.weight[units] = 0
            if layer.bias is not None:
                layer.bias[units] = 0
        expected = model(*sample)
        assert torch.allclose(made.trial(silent).eval()(*sample), expected, atol=1e-5)


def test_attention_is_left_whole_by_channels_and_said_so() -> None:
    _, made = pruned("vit", "Channel")
    assert set(made.removed()) == {"blocks.0.mlp.fc1", "blocks.1.mlp.fc1"}
    told = {entry["layer"]: entry["why"] for entry in made.explain(made.worths())}
    assert told["blocks.0.attn.qkv"] == "part of an attention layer"
    assert told["head"] == "the head"


def test_heads_that_can_not_be_removed_are_refused_with_the_reason() -> None:
    with pytest.raises(MethodRefused, match="MultiheadAttention keeps its weights in a way that is not known") as caught:
        pruner(*build("torchvision_vit"), "Head")
    assert caught.value.field == "p.granularity"
    with pytest.raises(MethodRefused, match="no heads"):
        pruner(*build("Convolutional"), "Head")
    with pytest.raises(MethodRefused, match="no blocks"):
        pruner(*build("Convolutional"), "Layer")


def test_a_model_that_does_not_run_without_a_block_is_refused_and_not_written() -> None:
    class Counting(tiny_models.Residual):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(self.blocks) != 3:
                raise IndexError("the third block is missing")
            return super().forward(images)

    model = Counting(10)
    made = pruner(model, IMAGES, "Layer")
    with pytest.raises(MethodRefused, match="the third block is missing") as caught:
        made.apply(made.choose(made.worths(), 0.3))
    assert caught.value.field == "p.granularity"


def test_the_measured_loss_decides_which_block_goes() -> None:
    model, sample = build("Residual")
    made = pruner(model, sample, "Layer", importance="Loss", pruningRatio=0.3)
    with torch.no_grad():
        model.blocks[1].outer.weight.zero_()
        model.blocks[1].outer.bias.zero_()
        expected = model(*sample)

    def loss(other: nn.Module) -> float:
        with torch.no_grad():
            return float((other.eval()(*sample) - expected).square().sum())

    made.apply(made.choose(made.worths(loss), 0.3))
    assert made.change()["steps"] == [["blocks", [1]]]
    with torch.no_grad():
        assert torch.equal(model(*sample), expected)


def test_the_optimizer_can_not_bring_a_weight_back() -> None:
    model, made = pruned("Convolutional", "Weight")
    zeros = made.zeros()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    made.hold(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model.train()(*IMAGES).logsumexp(1).sum().backward()
        optimizer.step()
    assert made.zeros() == zeros and sum(zeros.values()) > 0
    assert made.sparsity() == pytest.approx(0.5, abs=1e-3)


def test_sparsity_grows_to_what_was_asked_and_local_is_alike_in_every_layer() -> None:
    model, sample = build("Convolutional")
    made = pruner(model, sample, "Weight", sparsity=0.8, iterativeSteps=2, scope="Local")
    for ratio in (0.4, 0.8):
        made.apply(made.choose(made.worths(), ratio))
        shares = {name: zeros / made.weights[name].numel() for name, zeros in made.zeros().items()}
        assert list(shares.values()) == pytest.approx([ratio] * 2, abs=0.01)


def test_two_of_four_along_the_inputs_are_zero_and_they_are_the_smaller_ones() -> None:
    _, made = pruned("Residual", "NM")
    whole, _ = build("Residual")
    assert made.untouched["stem"] == "its 1 inputs are no multiple of 4"
    for name, weight in made.weights.items():
        fours = weight.detach().movedim(1, -1).reshape(-1, 4)
        was = whole.get_submodule(name).weight.detach().movedim(1, -1).reshape(-1, 4)
        assert ((fours == 0).sum(1) == 2).all()
        assert (was.abs().masked_fill(fours == 0, 9).min(1).values >= was.abs().masked_fill(fours != 0, 0).max(1).values).all()
    with pytest.raises(MethodRefused) as caught:
        pruner(*build("Residual"), "NM", iterativeSteps=2)
    assert caught.value.field == "p.iterativeSteps"


def test_weights_are_saved_as_they_are(tmp_path: Path) -> None:
    model, made = pruned("Convolutional", "Weight")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    again, _ = build("Convolutional")
    load_model(again, str(tmp_path / "w.safetensors"))
    assert int((again.second.weight == 0).sum()) == made.zeros()["second"]


@pytest.mark.parametrize(
    ("granularity", "name", "glob"),
    [
        ("Weight", "Residual", "blocks.0"),
        ("NM", "Residual", "blocks.0"),
        ("Channel", "Residual", "blocks.0"),
        ("Head", "vit", "blocks.0"),
        ("Layer", "Residual", "blocks"),
    ],
)
def test_what_an_ignored_module_holds_is_ignored_too(granularity: str, name: str, glob: str) -> None:
    """As with frozenModules and quantize.ignore: who names a block need not know what it is made of."""
    model, sample = build(name)
    try:
        made = pruner(model, sample, granularity, ignore=[glob])
    except MethodRefused as refused:
        assert granularity == "Layer" and f"{glob}.0: ignored" in refused.message, "nothing else could go"
        return
    known = made.weights if granularity in SHARES else [layer.name for layer in made.layers]
    assert not [layer for layer in known if layer.startswith(f"{glob}.")]
    assert [reason for layer, reason in made.untouched.items() if layer.startswith(f"{glob}.")] and known
