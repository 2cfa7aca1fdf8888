"""Drawing into a photo: the stock pipelines' pictures, the photo outside the mask, one line for what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from palp_lab.context import Context, read_context
from palp_lab.generate import Sampling, clean, generate, generate_pictures, personal
from palp_lab.model.base import AbstractModel
from palp_lab.model.schedulers import SCHEDULERS
from palp_lab.model.sd3 import Sd3Model
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.unet import UNetModel
from palp_lab.pictures import read_pictures
from palp_lab.types import UserError
from tests.micro_lab import MicroLab
from tests.model import sd3_pipelines
from tests.test_generate import adapter, concept, differ  # noqa: F401
from tests.test_verbs_pictures import compose_verb

SENTENCE = "a photo of a {} in the snow"
PROMPT = "a photo of a cat in the snow"
FAST = Sampling("ddim", 5, 5.0)
WAYS = [*((name, 0.5) for name in SCHEDULERS), ("ddim", 1.0), ("euler_a", 1.0), ("HeunDiscreteScheduler", 0.5)]


def photo(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def hole(width: int = 32, height: int = 32, box: tuple[int, int, int, int] = (4, 8, 20, 28)) -> Image.Image:
    """A mask that is white inside a box."""
    mask = Image.new("L", (width, height), 0)
    mask.paste(255, box)
    return mask


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A photo and a mask of the micro model's size."""
    photo().save(tmp_path / "photo.png")
    hole().save(tmp_path / "mask.png")
    return tmp_path / "photo.png", tmp_path / "mask.png"


def draw(model: AbstractModel, context: Context | None, seeds=(0, 1), how=FAST, size=8, who=None):  # type: ignore[no-untyped-def]
    who = who or clean(model, concept())
    return list(generate_pictures(model, who, [SENTENCE], seeds, how, size, context=context))


def stock(path: Path, name: str, model: AbstractModel, scheduler: str) -> Any:
    """A stock pipeline on the folder's own weights."""
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(path, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = model.scheduler(scheduler)
    return pipe


def latents_of(model: AbstractModel, context: Context, scheduler: str, seed: int, guidance: float, monkeypatch) -> Any:  # type: ignore[no-untyped-def]
    """What is decoded when one picture is drawn."""
    seen: list[torch.Tensor] = []
    decode = model.decode_image
    monkeypatch.setattr(model, "decode_image", lambda latents: seen.append(latents) or decode(latents))
    draw(model, context, [seed], Sampling(scheduler, 6, guidance))
    return seen[0]


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Within 1e-5 of their range: a random network blows up what it is given, and its rounding with it."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize(("scheduler", "strength"), WAYS)
def test_image_to_image_is_the_stock_pipeline(
    micro: UNetModel, micro_path: Path, scheduler: str, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = photo()
    theirs = stock(micro_path, "StableDiffusionImg2ImgPipeline", micro, scheduler)(
        PROMPT, image=pixels, strength=strength, num_inference_steps=6, guidance_scale=5.0, output_type="latent",
        generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip
    context = Context(torch.from_numpy(np.array(pixels)).permute(2, 0, 1), noise_strength=strength)
    ours = latents_of(micro, context, scheduler, 7, 5.0, monkeypatch)
    assert_same(ours, theirs)


@pytest.mark.parametrize(("scheduler", "strength"), WAYS)
def test_inpainting_is_the_stock_pipeline(
    micro: UNetModel, micro_path: Path, scheduler: str, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a UNet of four channels, ancestral samplers included: they draw as many numbers before the loop."""
    pixels, mask = photo(), hole()
    theirs = stock(micro_path, "StableDiffusionInpaintPipeline", micro, scheduler)(
        PROMPT, image=pixels, mask_image=mask, height=32, width=32, strength=strength, num_inference_steps=6,
        guidance_scale=5.0, output_type="latent", generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    context = Context(image, torch.from_numpy(np.array(mask)) > 127, strength)
    ours = latents_of(micro, context, scheduler, 7, 5.0, monkeypatch)
    assert_same(ours, theirs)


def test_without_guidance_and_with_v_prediction(
    micro_v: UNetModel, micro_v_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, mask = photo(seed=3), hole(box=(0, 0, 32, 12))
    theirs = stock(micro_v_path, "StableDiffusionInpaintPipeline", micro_v, "ddim")(
        PROMPT, image=pixels, mask_image=mask, height=32, width=32, strength=0.7, num_inference_steps=6,
        guidance_scale=1.0, output_type="latent", generator=torch.Generator().manual_seed(2),
    ).images  # fmt: skip
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    context = Context(image, torch.from_numpy(np.array(mask)) > 127, 0.7)
    ours = latents_of(micro_v, context, "ddim", 2, 1.0, monkeypatch)
    assert_same(ours, theirs)


@pytest.mark.parametrize("masked", [False, True])
def test_sdxl_into_a_photo_is_the_stock_pipeline(
    micro_sdxl: SdxlModel, micro_sdxl_path: Path, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    name = "StableDiffusionXLInpaintPipeline" if masked else "StableDiffusionXLImg2ImgPipeline"
    pipe = getattr(diffusers, name).from_pretrained(micro_sdxl_path, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = micro_sdxl.scheduler("euler")
    pixels, mask = photo(), hole()
    more: dict[str, Any] = {"mask_image": mask, "height": 32, "width": 32} if masked else {}
    theirs = pipe(
        PROMPT, image=pixels, strength=0.5, num_inference_steps=6, guidance_scale=5.0, output_type="latent",
        generator=torch.Generator().manual_seed(7), **more,
    ).images  # fmt: skip
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    context = Context(image, torch.from_numpy(np.array(mask)) > 127 if masked else None, 0.5)
    assert_same(latents_of(micro_sdxl, context, "euler", 7, 5.0, monkeypatch), theirs)


def test_a_flow_model_into_a_photo_is_the_stock_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where steps times strength is a whole number; between them that pipeline rounds up, and the others down."""
    from diffusers import StableDiffusion3Img2ImgPipeline

    folder = sd3_pipelines.build(tmp_path / "sd3", t5=False)
    model, pixels = Sd3Model.open(folder), photo()
    pipe = StableDiffusion3Img2ImgPipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)
    pipe.set_progress_bar_config(disable=True)
    side = model.resolution
    theirs = pipe(
        PROMPT, image=pixels.resize((side, side)), height=side, width=side, strength=0.5, num_inference_steps=6,
        guidance_scale=5.0, output_type="latent", generator=torch.Generator().manual_seed(7),
    ).images  # fmt: skip
    image = torch.from_numpy(np.array(pixels.resize((side, side)))).permute(2, 0, 1)
    assert_same(latents_of(model, Context(image, noise_strength=0.5), "euler", 7, 5.0, monkeypatch), theirs)
    hidden = Context(image, torch.arange(side).expand(side, side) < side // 2)
    (picture,) = draw(model, hidden, [0])
    assert torch.equal(picture.image[:, :, side // 2 :], image[:, :, side // 2 :])


def test_what_is_no_picture_or_mask_is_refused() -> None:
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    with pytest.raises(UserError, match=r"photo must be \[3 h w\] of 8 bits"):
        Context(image.float())
    with pytest.raises(UserError, match="mask must be true or false"):
        Context(image, torch.ones(32, 32))


def test_outside_the_mask_the_picture_is_the_photo(micro: UNetModel, adapter, files) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    model = adapter.model
    context = read_context(*files)
    canvas = context.fit(32)
    outside = ~canvas.mask
    for picture in draw(model, context, who=personal(adapter)):
        assert torch.equal(picture.image[:, outside], canvas.photo[:, outside])
        assert (picture.image[:, canvas.mask].int() - canvas.photo[:, canvas.mask].int()).abs().max() > 10
    (bare,) = draw(model, read_context(*files, paste_back=False), [0], who=personal(adapter))
    assert not torch.equal(bare.image[:, outside], canvas.photo[:, outside]), "what the autoencoder makes of it"


def test_the_adapter_draws_and_each_seed_differs(adapter, files) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    context, model = read_context(*files), adapter.model
    mine, base_ones = (draw(model, context, who=w) for w in (personal(adapter), clean(model, concept(), adapter)))
    assert differ(mine[0], base_ones[0]) > 1
    assert differ(mine[0], mine[1]) > 10


def test_a_small_strength_stays_near_the_photo(
    micro: UNetModel, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = read_context(files[0]).photo[None] / 127.5 - 1
    photo_itself = micro.encode_image(pixels).sample(torch.Generator().manual_seed(0))

    def distance(strength: float) -> float:
        context = read_context(files[0], noise_strength=strength)
        return float((latents_of(micro, context, "ddim", 0, 1.0, monkeypatch) - photo_itself).abs().mean())

    assert distance(0.2) < 0.3 * distance(1.0)


def test_neither_batch_nor_neighbours_change_a_picture(micro: UNetModel, files: tuple[Path, Path]) -> None:
    context = read_context(*files, noise_strength=0.8)
    how = Sampling("euler_a", 5, 5.0)
    many, few = draw(micro, context, (0, 1, 2), how, 3), draw(micro, context, (2,), how, 1)
    assert differ(many[2], few[0]) <= 1


def test_a_photo_is_cut_and_scaled_and_the_mask_with_it(micro: UNetModel, tmp_path: Path) -> None:
    photo(100, 64).save(tmp_path / "wide.jpg", exif=_turned())
    hole(64, 100, (10, 30, 50, 60)).save(tmp_path / "mask.png")
    context = read_context(tmp_path / "wide.jpg", tmp_path / "mask.png")
    assert context.photo.shape == (3, 100, 64), "upright"
    canvas = context.fit(32)
    assert canvas.knobs["image_fit"] == "turned upright; 64 x 100 cut to the middle 64 x 64 and scaled to 32 x 32"
    assert canvas.mask is not None and canvas.mask[12, 15] and not canvas.mask[12, 31] and not canvas.mask[25, 15]
    assert abs(int(canvas.mask.sum()) - 20 * 15) <= 8, "a quarter of the pixels"
    (picture,) = draw(micro, context, [0])
    assert picture.image.shape == (3, 32, 32)


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def test_what_is_transparent_in_a_mask_stays(tmp_path: Path) -> None:
    photo().save(tmp_path / "photo.png")
    clear = Image.new("RGBA", (32, 32), "white")
    clear.putalpha(hole())
    clear.save(tmp_path / "mask.png")
    context = read_context(tmp_path / "photo.png", tmp_path / "mask.png")
    assert context.mask is not None and torch.equal(context.mask, torch.from_numpy(np.array(hole())) > 127)


def test_pictures_say_what_they_were_drawn_into(micro: UNetModel, files: tuple[Path, Path], tmp_path: Path) -> None:
    (plain,) = draw(micro, None, [0])
    (picture,) = draw(micro, read_context(*files), [0])
    more = {key: value for key, value in picture.knobs.items() if key not in plain.knobs}
    assert more == {
        "image": "photo.png", "image_hash": more["image_hash"], "image_fit": "as it is", "noise_strength": 1.0,
        "mask": "mask.png", "mask_hash": more["mask_hash"], "mask_threshold": 0.5, "paste_back": True,
    }  # fmt: skip
    (other,) = draw(micro, read_context(files[0]), [0])
    assert other.knobs["noise_strength"] == 0.8, "diffusers' default without a mask"
    assert other.knobs["image_hash"] == more["image_hash"] and "mask" not in other.knobs
    assert len({p.file_name() for p in (plain, picture, other)}) == 3


def bad(tmp_path: Path, name: str) -> dict[str, Any]:
    """Arguments that cannot be drawn into, by what is wrong."""
    good, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    photo().save(good)
    hole().save(mask)
    made = tmp_path / "made.png"
    if name == "text":
        made.write_text("no picture")
        return {"image": made}
    pictures = {
        "size": hole(40, 32), "empty": Image.new("L", (32, 32), 0), "full": Image.new("L", (32, 32), 255),
        "grey": Image.new("L", (32, 32), 100),
    }  # fmt: skip
    if name in pictures:
        pictures[name].save(made)
        return {"image": good, "mask": made}
    cases = {
        "missing": {"image": tmp_path / "none.png"}, "folder": {"image": tmp_path},
        "missing mask": {"image": good, "mask": tmp_path / "none.png"},
        "zero": {"image": good, "noise_strength": 0}, "two": {"image": good, "noise_strength": 2.0},
        "word": {"image": good, "noise_strength": "much"},
    }  # fmt: skip
    return cases[name]


@pytest.mark.parametrize(
    ("name", "line"),
    {
        "missing": r"generate\.image=.*none\.png: no such file",
        "folder": r"generate\.image=.*is a folder",
        "text": r"made\.png: cannot be read as a picture",
        "missing mask": r"generate\.mask=.*none\.png: no such file",
        "size": r"generate\.mask=made\.png: is 40 x 32 pixels, the photo 32 x 32",
        "empty": r"generate\.mask=made\.png: marks nothing of the photo",
        "full": r"generate\.mask=made\.png: marks all of the photo",
        "grey": r"brightest pixel is 100 of 255",
        "zero": r"generate\.noise_strength=0: must be above 0 and at most 1",
        "two": r"generate\.noise_strength=2\.0: must be",
        "word": r"generate\.noise_strength=much: must be",
    }.items(),
)
def test_what_cannot_be_drawn_into_is_one_line(name: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as error:
        read_context(**bad(tmp_path, name))
    assert "\n" not in str(error.value)


def test_what_the_model_cannot_draw_is_one_line(micro: UNetModel, files: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"noise_strength=0\.1: of 5 steps none is left"):
        draw(micro, read_context(files[0], noise_strength=0.1))
    image = read_context(files[0]).photo
    wide = Context(torch.cat([image] * 3, 2), torch.arange(96).expand(32, 96) < 20)
    with pytest.raises(UserError, match="marks nothing of the middle square"):
        draw(micro, wide)
    speck = torch.zeros(32, 32, dtype=torch.bool)
    speck[1, 1] = True
    with pytest.raises(UserError, match="finer than the 4 pixels"):
        draw(micro, Context(image, speck))
    micro.latent_shape = (9, 8, 8)
    with pytest.raises(UserError, match="takes 9 channels and the autoencoder gives 4"):
        draw(micro, read_context(*files))


def test_the_command_draws_into_a_photo(
    micro_lab: MicroLab, tmp_path: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the adapter this configuration trains, and of a saved one; the cells of a study stay as they were."""
    from palp_lab.cell import Cell

    overrides = ("method=ti_db", f"output={tmp_path}/out", "generate.seeds=1", "trainer.max_steps=1")
    into = (f"generate.image={files[0]}", f"generate.mask={files[1]}", "generate.noise_strength=0.9")
    plain, config = (compose_verb(micro_lab, "generate", *overrides, *more) for more in ((), into))
    assert Cell(config).run == Cell(plain).run
    assert Cell(config).stage_inputs("pictures", 1) == Cell(plain).stage_inputs("pictures", 1)
    generate(config)
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert folder.name.endswith("-in-photo")
    trained = read_pictures(folder)
    canvas = read_context(*files).fit(32)
    assert len(trained) == 2
    for picture in trained:
        assert picture.knobs["noise_strength"] == 0.9 and picture.knobs["mask"] == "mask.png"
        assert torch.equal(picture.image[:, ~canvas.mask], canvas.photo[:, ~canvas.mask])
    (adapter_path,) = tmp_path.glob("out/store/train/*/adapters/step_000001.safetensors")
    generate(compose_verb(micro_lab, "generate", *overrides, *into, f"adapters=[{adapter_path}]"))
    assert Path(capsys.readouterr().out.strip().splitlines()[-1]) == folder, "the same adapter, the same photo"


@pytest.mark.parametrize("key", ["mask", "noise_strength"])
def test_a_mask_or_strength_without_a_photo_is_one_line(micro_lab: MicroLab, key: str) -> None:
    value = "mask.png" if key == "mask" else "0.5"
    with pytest.raises(UserError, match=rf"generate\.{key}=.*add generate\.image"):
        generate(compose_verb(micro_lab, "generate", f"generate.{key}={value}"))


def test_other_verbs_have_no_photo_to_draw_into() -> None:
    from palp_lab.composition import compose

    with pytest.raises(UserError, match=r"generate\.image"):
        compose("run", "generate.image=photo.png")
