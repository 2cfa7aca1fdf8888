"""What an adapter learned, and every file it can be written to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.formats import custom_diffusion_files as custom_diffusion
from palp_lab.formats.embedding_files import by_site_names, to_embedding
from palp_lab.formats.low_rank import SD1, SD2, SDXL, Updates, cast, from_peft, to_diffusers, to_kohya, to_peft
from palp_lab.formats.names import ldm_paths
from palp_lab.layouts import name_customarily

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.adapter import Adapter

LORA = "pytorch_lora_weights.safetensors"
KOHYA = "kohya_lora.safetensors"
EMBEDDING = "learned_embeds.safetensors"
PIPELINE = "pipeline"
SD2_WIDTH = 1024
"""How wide the text of Stable Diffusion 2.x is; that of 1.x has 768."""


class Learned:
    """What an adapter learned, as plain tensors, with the formats that can hold it. Final.

    `updates` are low-rank, `weights` whole (all edits but LoRA; `text` by text encoder), `words` the vectors [k d] per
    text encoder; `dtype` is torch's, of low-rank updates and Custom Diffusion's weights in their files.
    """

    def __init__(self, adapter: Adapter, dtype: Any) -> None:
        self.adapter, self.dtype, self.model = adapter, dtype, adapter.model
        edits = adapter.edits
        low_rank = edits.lora()
        found = {"denoiser": from_peft(*low_rank)} if low_rank else {}
        found |= {part: from_peft(*some) for part, some in edits.text_lora().items()}
        self.updates: Updates = cast(found, dtype)
        self.weights: Mapping[str, Tensor] = {} if found else edits.merged()
        self.text: Mapping[str, Mapping[str, Tensor]] = {} if found else edits.merged_text()
        encoders = range(len(self.model.pieces("a")))
        per_encoder = [adapter.tokens.words(encoder) for encoder in encoders]
        self.words = {word: tuple(own[word] for own in per_encoder) for word in per_encoder[0]}

    @property
    def loadable_words(self) -> dict[str, tuple[Tensor, ...]]:
        """Those `load_textual_inversion` takes: not vectors by cross-attention site, and not every pipeline has it."""
        return self.words if loads_words(self.adapter) else {}

    @property
    def edited(self) -> bool:
        """Whether the network itself differs from the base."""
        return bool(self.updates or self.weights or self.text)

    @property
    def formats(self) -> list[str]:
        """All that can hold what was learned, or a part of it."""
        found = ["lora", *["kohya"] * (self.model.denoiser_part == "unet"), "peft"] if self.updates else []
        if not self.text and custom_diffusion.trained(self.weights, [site.path for site in self.model.sites]):
            found.append("custom_diffusion")
        if self.words:
            found.append("embedding")
        return [*found, "pipeline"] if self.edited or self.loadable_words else found

    @property
    def usual_formats(self) -> list[str]:
        """The smallest that hold all of it together: a merged pipeline only where the edit has no smaller file."""
        found = [name for name in self.formats if name in ("lora", "custom_diffusion", "embedding")]
        if not self.weights or "custom_diffusion" in found:
            return found
        return ["pipeline"] if self.loadable_words or not self.words else ["embedding", "pipeline"]

    def there(self, folder: Path) -> list[str]:
        """The formats of which a folder has a file."""
        files = {"lora": LORA, "kohya": KOHYA, "custom_diffusion": custom_diffusion.FILE, "embedding": EMBEDDING}
        return [name for name in self.formats if (folder / files.get(name, name)).exists()]

    def write(self, name: str, folder: Path) -> str:
        """Writes one format; the name of its file below `folder`. `pipeline` takes the edit out of the model."""
        return getattr(self, f"write_{name}")(folder)

    def write_lora(self, folder: Path) -> str:
        """diffusers' LoRA, with alpha in the header."""
        from palp_lab.model.pipeline import peft_defaults

        return _save(folder / LORA, *to_diffusers(self.updates, self.model.denoiser_part, peft_defaults()))

    def write_kohya(self, folder: Path) -> str:
        """kohya's LoRA. Its tools name the layers of SDXL as the original code does."""
        names: dict[str, str] = {}
        base: Any = self.model.base
        family = None
        if self.model.pipeline == "StableDiffusionXLPipeline":
            names = ldm_paths([path for path, _ in base.named_modules()], base.config.layers_per_block)
            family = SDXL
        elif self.model.pipeline == "StableDiffusionPipeline":
            family = SD2 if base.config.cross_attention_dim == SD2_WIDTH else SD1
        return _save(folder / KOHYA, *to_kohya(self.updates, names, self.adapter.concept.name, family))

    def write_peft(self, folder: Path) -> str:
        """A folder of peft for every part of the model that is updated."""
        from palp_lab.model.pipeline import save_peft_config

        for part, layers in self.updates.items():
            own = folder / "peft" / (self.model.denoiser_part if part == "denoiser" else part)
            weights, words = to_peft(layers)
            own.mkdir(parents=True, exist_ok=True)
            plain = {f"base_model.model.{name}": weight for name, weight in weights.items()}
            _save(own / "adapter_model.safetensors", plain, {"format": "pt"})
            save_peft_config(own, words, "")
        return "peft"

    def write_custom_diffusion(self, folder: Path) -> str:
        """Custom Diffusion's weights as diffusers' training script names them."""
        from palp_lab.model.pipeline import attention_paths

        tensors = custom_diffusion.to_custom_diffusion(self.weights, attention_paths(self.model), self.dtype)
        return _save(folder / custom_diffusion.FILE, tensors, {"format": "pt"})

    def write_embedding(self, folder: Path) -> str:
        """The learned word, or its vectors by cross-attention site under kohya's names; always in float32."""
        found: dict[str, Tensor] = {}
        if list(self.words) == [self.adapter.concept.placeholder]:
            found = to_embedding(*next(iter(self.words.items())))
        else:
            sites, encoders = list(self.words), len(next(iter(self.words.values())))
            for name, own in by_site_names(sites, encoders).items():
                site, _, number = own.rpartition(".")
                found[name] = self.words[site][int(number)].detach().cpu().float().contiguous()
        return _save(folder / EMBEDDING, found, {"format": "pt"})

    def write_pipeline(self, folder: Path) -> str:
        """The whole pipeline, edit and words worked in."""
        from palp_lab.model.pipeline import stock_pipeline

        edits = self.adapter.edits
        merged = _copies(edits.merged())
        text = {part: _copies(weights) for part, weights in edits.merged_text().items()}
        self.adapter.detach()
        stock_pipeline(self.model, merged, self.loadable_words, text).save_pretrained(folder / PIPELINE)
        name_customarily(folder / PIPELINE)
        return PIPELINE


def loads_words(adapter: Adapter) -> bool:
    """Whether stock diffusers can add the learned word to the model's vocabulary."""
    known = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
    return adapter.model.pipeline in known and list(adapter.tokens.words()) == [adapter.concept.placeholder]


def _copies(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def _save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    from safetensors.torch import save

    from palp_lab.study.writing import write_bytes

    write_bytes(path, save(dict(tensors), dict(header)))
    return path.name
