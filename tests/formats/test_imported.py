"""What other tools trained does the same here: pictures as in plain diffusers, and one line for what cannot be."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from palp_lab.export import export_adapter
from palp_lab.formats.imported import import_adapter, read_contents
from palp_lab.formats.recipe import Naming
from palp_lab.model import open_model
from palp_lab.model.base import AbstractModel
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.unet import UNetModel
from palp_lab.saved_adapters import assemble
from palp_lab.types import UserError
from tests.contracts.parts import adapter, train_a_little
from tests.test_export import SENTENCE, draw

TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1"]
UNET = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "proj_in"]


def imported(path: Path, model: AbstractModel, naming: Naming) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return import_adapter(path, read_contents(path), model, naming)


def ours(path: Path, model: AbstractModel, naming: Naming) -> torch.Tensor:
    """Our picture of an imported adapter."""
    tensors, about = imported(path, model, naming)
    json.dumps(about)
    one = assemble(model, about)
    try:
        one.load_tensors(tensors)
        return draw(one)
    finally:
        one.detach()


def theirs(pipe: Any, words: str) -> torch.Tensor:
    """The picture of plain diffusers."""
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    side = pipe.unet.config.sample_size
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(4))
    prompt = SENTENCE.format(words)
    return pipe(prompt, latents=noise, num_inference_steps=5, guidance_scale=5.0, output_type="latent").images


def trained(network: Any, rank: int, alpha: float, targets: list[str]) -> dict[str, Any]:
    """A network with a LoRA as the training scripts add it, moved as training would; its weights by peft's names."""
    network.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian"))
    draw_from = torch.Generator().manual_seed(rank)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "lora_B" in name:
                weight += 0.05 * torch.randn(weight.shape, generator=draw_from)
    return get_peft_model_state_dict(network)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_loras_of_training_scripts(family: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """diffusers' scripts with and without the text encoder; kohya's, convolutions included, with its alpha."""
    path = request.getfixturevalue("micro_path" if family == "sd" else "micro_sdxl_path")
    model, naming = open_model(path), Naming("sks cat", "cat")
    pipe = DiffusionPipeline.from_pretrained(path)
    unet = trained(pipe.unet, 4, 4, UNET)
    encoders = {"text_encoder": pipe.text_encoder} | (
        {"text_encoder_2": pipe.text_encoder_2} if family == "sdxl" else {}
    )
    texts = {part: trained(encoder, 2 + i, 2 + i, TEXT) for i, (part, encoder) in enumerate(encoders.items())}
    wanted = theirs(pipe, "sks cat")
    layers = {f"{part}_lora_layers": convert_state_dict_to_diffusers(dict(some)) for part, some in texts.items()}
    pipe.save_lora_weights(tmp_path / "both", convert_state_dict_to_diffusers(dict(unet)), **layers)
    torch.testing.assert_close(ours(tmp_path / "both", model, naming), wanted, rtol=1e-3, atol=1e-4)

    names = {f"unet.{name}": value for name, value in unet.items()}
    names |= {f"{part}.{name}": value for part, some in texts.items() for name, value in some.items()}
    kohya = {name: value.contiguous().clone() for name, value in convert_state_dict_to_kohya(names).items()}
    kohya = {name: value / 2 if name.endswith("proj_in.alpha") else value for name, value in kohya.items()}
    save_file(kohya, tmp_path / "kohya.safetensors")
    plain = DiffusionPipeline.from_pretrained(path)
    plain.load_lora_weights({name.replace("_encoder_layers", "_text_model_encoder_layers").replace(
        "text_model_text_model", "text_model"): value for name, value in kohya.items()})  # fmt: skip
    found = ours(tmp_path / "kohya.safetensors", model, naming)
    torch.testing.assert_close(found, theirs(plain, "sks cat"), rtol=1e-3, atol=1e-4)
    assert float((found - wanted).abs().max()) > 1e-2, "half the alpha is another picture"


@pytest.mark.slow
def test_a_folder_of_peft(micro_path: Path, micro: UNetModel, tmp_path: Path) -> None:
    pipe = DiffusionPipeline.from_pretrained(micro_path)
    torch.manual_seed(0)
    config = LoraConfig(
        r=2, lora_alpha=8, target_modules=["to_q", "to_k"], alpha_pattern={"attn1.to_k": 3}, init_lora_weights=False
    )
    pipe.unet = get_peft_model(pipe.unet, config)
    pipe.unet.save_pretrained(str(tmp_path))
    naming = Naming("sks {superclass}", "cat")
    torch.testing.assert_close(ours(tmp_path, micro, naming), theirs(pipe, "sks cat"), rtol=1e-3, atol=1e-4)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json: is damaged"):
        ours(tmp_path, micro, naming)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    with pytest.raises(UserError, match="holds a LOHA"):
        ours(tmp_path, micro, naming)


@pytest.mark.slow
def test_words_of_diffusers_and_a1111(micro_path: Path, micro: UNetModel, tmp_path: Path) -> None:
    vectors = 0.05 * torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    save_file({"<mia>": vectors}, tmp_path / "learned_embeds.safetensors")
    torch.save({"string_to_param": {"*": vectors}, "name": "mia", "step": 7}, tmp_path / "mia.pt")
    save_file({"emb_params": vectors}, tmp_path / "zoe.safetensors")
    pipe = DiffusionPipeline.from_pretrained(micro_path)
    pipe.load_textual_inversion(tmp_path / "learned_embeds.safetensors")
    wanted = theirs(pipe, "<mia> cat")
    for name, trigger in (
        ("learned_embeds.safetensors", "<mia> cat"),
        ("mia.pt", "<new> cat"),
        ("zoe.safetensors", "zoe cat"),
    ):
        found = ours(tmp_path / name, micro, Naming(trigger))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4, msg=name)


RECIPES = {
    ("learned", "lora", "kohya"): {"text_encoder": True, "rank": 3, "alpha": 2.0, "targets": UNET},
    ("per_layer", "none", "embedding"): {},
    ("learned", "lora", "lora"): {"text_encoder": True, "rank": 3, "alpha": 2.0},
    ("rare", "lora", "peft"): {"text_encoder": True, "rank": 2, "alpha": 6.0},
    ("learned", "key_value", "custom_diffusion"): {"crossattn": True},
}
FAST = [("micro", recipe) for recipe in list(RECIPES)[:2]]
SLOW = [
    pytest.param(family, recipe, marks=pytest.mark.slow) for family in ("micro", "micro_sdxl") for recipe in RECIPES
]


@pytest.mark.parametrize(("family", "recipe"), [*FAST, *[one for one in SLOW if one.values not in FAST]])
def test_what_we_export_comes_back(
    family: str, recipe: tuple[str, str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(family)
    tokens, edits, form = recipe
    one = adapter(model, tokens, edits, **RECIPES[recipe])
    train_a_little(one)
    wanted, call = draw(one), one.tokens.call(one.concept)
    export_adapter(one, tmp_path, format=[form, "embedding"] if tokens == "learned" else form)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # peft names every pattern that fits no layer of a network
        found = ours(tmp_path / "peft" if form == "peft" else tmp_path, model, Naming(call, "cat"))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


def about(path: Path, model: AbstractModel, *naming: str) -> dict[str, Any]:
    return imported(path, model, Naming(*naming))[1]


def lora(folder: Path, micro: UNetModel, name: str = "lora.safetensors") -> Path:
    site = micro.sites[0]
    key = f"unet.{site.path}.to_k.lora"
    save_file(
        {f"{key}_A.weight": torch.ones(2, site.context_width), f"{key}_B.weight": torch.ones(site.channels, 2)},
        folder / name,
    )
    return folder / name


def test_how_the_subject_is_called(micro: UNetModel, tmp_path: Path) -> None:
    path = lora(tmp_path, micro)
    with pytest.raises(UserError, match=r"lora\.safetensors: does not say .*imported\.trigger=\"sks dog\""):
        about(path, micro)
    with pytest.raises(UserError, match=r"imported\.superclass=dog"):
        about(path, micro, "sks {superclass}")
    with pytest.raises(UserError, match="may stand in braces"):
        about(path, micro, "sks {}")
    assert about(path, micro, "sks {superclass}", "dog")["tokens"]["phrase"] == "sks dog"
    save_file({"<mia>": torch.ones(16)}, tmp_path / "learned_embeds.safetensors")
    found = about(tmp_path, micro)
    assert found["placeholder"] == "<mia>" and found["edits"]["_target_"].endswith("LoraEdits"), "a LoRA and its word"
    assert about(tmp_path, micro, "old <mia> cat")["tokens"]["phrase"] == "old {placeholder} cat"
    with pytest.raises(UserError, match="holds the word '<mia>', which must stand in it"):
        about(tmp_path, micro, "sks cat")
    save_file({"emb_params": torch.ones(1, 16)}, tmp_path / "dog.pt")
    with pytest.raises(UserError, match=r"dog\.pt: its word 'dog' is a known one"):
        about(tmp_path / "dog.pt", micro)
    assert about(tmp_path / "dog.pt", micro, "<v> dog")["placeholder"] == "<v>"
    lora(tmp_path, micro, "other.safetensors")
    with pytest.raises(UserError, match="holds another adapter of this kind"):
        about(tmp_path, micro)


def vectors_of(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [value for name, value in sorted(tensors.items()) if name.startswith("tokens.vectors.")]


def test_a_word_in_one_file_for_each_text_encoder(micro: UNetModel, micro_sdxl: SdxlModel, tmp_path: Path) -> None:
    """As diffusers' textual_inversion_sdxl.py leaves it."""
    first, second = torch.full((2, 16), 0.25), torch.full((2, 24), 0.5)
    save_file({"<mia>": first}, tmp_path / "learned_embeds.safetensors")
    with pytest.raises(UserError, match=r"width 16, and .* also read 24; give the folder with the files of both"):
        about(tmp_path / "learned_embeds.safetensors", micro_sdxl)
    save_file({"<mia>": second}, tmp_path / "learned_embeds_2.safetensors")
    tensors, found = imported(tmp_path, micro_sdxl, Naming())
    assert found["placeholder"] == "<mia>" and found["tokens"]["num_vectors"] == 2
    assert [torch.equal(*pair) for pair in zip(vectors_of(tensors), (first, second), strict=True)] == [True, True]
    again = assemble(micro_sdxl, found)
    again.load_tensors(tensors)
    again.detach()
    save_file({"<mia>": second}, tmp_path / "learned_embeds_2-steps-500.safetensors")
    with pytest.raises(UserError, match=r"learned_embeds_2\.safetensors: the folder holds vectors of <mia> for this"):
        about(tmp_path, micro_sdxl)
    (tmp_path / "learned_embeds_2-steps-500.safetensors").unlink()
    save_file({"<zoe>": second}, tmp_path / "learned_embeds_2.safetensors")
    with pytest.raises(UserError, match=r"holds 2 words \(<mia>, <zoe>\)"):
        about(tmp_path, micro_sdxl)
    with pytest.raises(UserError, match="holds another adapter of this kind"):
        save_file({"clip_l": first, "clip_g": second}, tmp_path / "learned_embeds_2.safetensors")
        about(tmp_path, micro_sdxl)


@pytest.mark.parametrize("ending", [".bin", ".pt"])
def test_an_embedding_of_torch_beside_a_safetensors_lora_is_read(ending: str, micro: UNetModel, tmp_path: Path) -> None:
    lora(tmp_path, micro)
    torch.save({"<mia>": torch.full((16,), 0.5)}, tmp_path / f"learned_embeds{ending}")
    tensors, found = imported(tmp_path, micro, Naming())
    assert found["placeholder"] == "<mia>" and found["edits"]["_target_"].endswith("LoraEdits")
    assert torch.equal(vectors_of(tensors)[0], torch.full((1, 16), 0.5))
    save_file({"<mia>": torch.full((16,), 0.25)}, tmp_path / "learned_embeds.safetensors")
    assert [file.path.name for file in read_contents(tmp_path)] == ["learned_embeds.safetensors", "lora.safetensors"]
    torch.save({"<mia>": object()}, tmp_path / f"other{ending}")
    with pytest.raises(UserError, match=rf"other\{ending}: holds more than plain tensors"):
        read_contents(tmp_path)


@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_a_folder_of_peft_whose_base_was_changed(tmp_path: Path, kind: str) -> None:
    save_file({"base_model.model.to_k.lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 2, "init_lora_weights": "eva"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_contents(tmp_path)[0].peft == config
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": kind}))
    with pytest.raises(UserError, match=rf"adapter_config\.json: init_lora_weights={kind} changed the base") as error:
        read_contents(tmp_path)
    assert "\n" not in str(error.value)


def test_an_embedding_beside_a_folder_of_peft_is_read(micro: UNetModel, tmp_path: Path) -> None:
    one = adapter(micro, "rare", "lora", rank=2)
    export_adapter(one, tmp_path, format="peft")
    folder = tmp_path / "peft" / "unet"
    torch.save({"<mia>": torch.ones(16)}, folder / "learned_embeds.pt")
    assert about(folder, micro)["placeholder"] == "<mia>"
    assert [content.path.name for content in read_contents(folder)] == [
        "adapter_model.safetensors",
        "learned_embeds.pt",
    ]


def test_vectors_by_site_are_those_we_wrote(micro: UNetModel, tmp_path: Path) -> None:
    vectors = {site.path: torch.full((1, 16), float(site.index)) for site in micro.sites}
    save_file(vectors, tmp_path / "xti.safetensors")
    tensors, found = imported(tmp_path / "xti.safetensors", micro, Naming("<v> cat"))
    assert found["tokens"]["_target_"].endswith("PerLayerTokens") and found["placeholder"] == "<v>"
    one = assemble(micro, found)
    one.load_tensors(tensors)
    assert all(torch.equal(own, vectors[name]) for name, own in one.tokens.words().items())


def test_what_is_no_adapter(micro: UNetModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        about(tmp_path / "nowhere", micro)
    with pytest.raises(UserError, match="holds no saved adapter and no weights"):
        about(tmp_path, micro)
    save_file({"model.diffusion_model.out.2.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: a whole model.*model\.path="):
        about(tmp_path, micro)
    save_file({"conv.extra": torch.ones(2, 2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"holds conv\.extra, which is no LoRA"):
        about(tmp_path, micro)
    word = "text_encoder.encoder.layers.0.self_attn.q_proj.lora"
    save_file(
        {f"{word}_A.weight": torch.ones(2, 16), f"{word}_B.weight": torch.ones(16, 2)}, tmp_path / "model.safetensors"
    )
    with pytest.raises(UserError, match="updates the text encoder alone"):
        about(tmp_path, micro, "sks cat")
