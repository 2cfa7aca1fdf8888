"""The memory a training step or a batch of pictures takes, counted from the shapes of its tensors: nothing is computed,
so that a step no device here could hold can be counted as well."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from palp_lab.adapter import Adapter
from palp_lab.engine.feed import Draw
from palp_lab.engine.personalizer import predicted
from palp_lab.engine.prior import asking
from palp_lab.engine.settings import RunSettings
from palp_lab.losses.base import AbstractLoss, StepContext
from palp_lab.losses.passes import Share, stream
from palp_lab.model.base import AbstractModel, TextCond
from palp_lab.types import Role, UserError


class Uncounted(Exception):
    """A part cannot be run through on shapes alone: it looks at values, say."""


class Counting(TorchDispatchMode):
    """A block in which the bytes of all tensors that are made are counted for as long as anybody holds them: `now`,
    and `peak` at the highest. What was there before does not count, nor do views. Final.

    With `shapes_only` no operation on real numbers is computed: a shape stands for each tensor and takes no memory.
    Whole and single numbers (ids, positions, the optimizer's count of steps) are computed with as ever.
    """

    def __init__(self, shapes_only: bool = False) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._live: dict[int, int] = {}
        self._shapes = FakeTensorMode(allow_non_fake_inputs=True) if shapes_only else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told, spec = tree_flatten((args, kwargs or {}))
        if self._shapes is not None and any(isinstance(one, Tensor) and _has_shape(one) for one in told):
            told = [self.shape_of(one) if isinstance(one, Tensor) else one for one in told]
            args, kwargs = tree_unflatten(told, spec)
        given = {one.untyped_storage()._cdata for one in told if isinstance(one, Tensor)}
        made = func(*args, **(kwargs or {}))
        for one in tree_flatten(made)[0]:
            if isinstance(one, Tensor) and one.untyped_storage()._cdata not in given:
                self._count(one)
        return made

    def shape_of(self, tensor: Tensor) -> Tensor:
        """What stands for a tensor of real numbers, always the same for the same one; any other as it is."""
        if self._shapes is None or isinstance(tensor, FakeTensor) or not tensor.is_floating_point():
            return tensor
        return self._shapes.from_tensor(tensor)

    def zeros(self, *size: int, device: torch.device) -> Tensor:
        """A new tensor that takes no memory but counts."""
        with self._shapes or nullcontext():
            made = torch.zeros(size, device=device)
        self._count(made)
        return made

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self.now += self._live[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._live.pop(key)


def _has_shape(tensor: Tensor) -> bool:
    """Whether an operation on a tensor is one of real numbers that is worth leaving out."""
    return isinstance(tensor, FakeTensor) or (tensor.is_floating_point() and tensor.ndim > 0)


def training_peak(
    adapter: Adapter,
    losses: Mapping[str, AbstractLoss],
    settings: RunSettings,
    captions: Sequence[str],
    target: str | None = None,
    foreach: bool | None = None,
) -> int:
    """Bytes of all tensors at the peak of an optimizer step, beside the model's frozen weights: what is trained, its
    gradients and moments, and the activations of one micro-batch of one process. The costlier steps that measure
    gradients count. What a device's libraries take for themselves comes on top.

    Args:
        captions: sentences with one slot, of which each row draws one; a photo's own captions take as much.
        foreach: whether the optimizer steps all tensors at once, which takes as much again as is trained; None: as
            torch does on the model's device (on CUDA).

    Raises:
        Uncounted: where a part cannot be run through on shapes alone; it looks at values, say.
    """
    how, model = settings.trainer, adapter.model
    parameters = [parameter for _, parameter in adapter.parts()]
    own = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    at_once = model.device.type == "cuda" if foreach is None else foreach
    try:
        with _counted(model) as count, model.checkpointing(how.gradient_checkpointing):
            twins = [nn.Parameter(count.shape_of(one.detach())) for one in parameters]
            optimizer = torch.optim.AdamW(twins, foreach=at_once)
            for twin, one in zip(twins, parameters, strict=True):
                twin.grad = one.grad = torch.zeros_like(twin)
            optimizer.step()  # the moments are there from the second step on
            optimizer.zero_grad()
            if how.accumulate > 1:  # the gradients of the micro-batches before
                _, total = _forward(count, adapter, losses, settings, captions, target)
                total.backward()
                del total
            for one in parameters:
                one.grad = None
            values, total = _forward(count, adapter, losses, settings, captions, target)
            if measured := [value for value in values if value.requires_grad and settings.log.gradients_every]:
                held = [torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True) for one in measured]
                del held
            total.backward()
    finally:
        for one in parameters:
            one.grad = None
    copies = 1 + (how.devices > 1)  # DDP's buckets of gradients
    copies += bool(how.ema) and model.device.type == "cpu"  # where the average is kept
    return own * copies + count.peak


def drawing_peak(model: AbstractModel, pictures: int, guided: bool) -> int:
    """Bytes of all tensors at the peak of drawing a batch of pictures, beside the model's weights. Raises Uncounted as
    `training_peak` does."""
    with _counted(model) as count, torch.no_grad():
        cond = model.unconditional(pictures)
        x_t = count.zeros(pictures, *model.latent_shape, device=model.device)
        t = model.path.draw_t(pictures, stream(0, 0, "t")).to(model.device)
        rows = 2 if guided else 1
        model.predict(torch.cat([x_t] * rows), torch.cat([t] * rows), TextCond.cat([cond] * rows))
        model.decode_image(x_t)
    return count.peak


@contextmanager
def _counted(model: AbstractModel) -> Iterator[Counting]:
    """Counts without values. Encoded prompts the model remembers are left out: those of the block have none."""
    try:
        with Counting(shapes_only=True) as count, model.forgetting():
            yield count
    except UserError:
        raise
    except Exception as error:  # whatever a part of one's own does with a tensor: it may well train all the same
        raise Uncounted(f"{type(error).__name__}: {error}") from error


def _forward(
    count: Counting,
    adapter: Adapter,
    losses: Mapping[str, AbstractLoss],
    settings: RunSettings,
    captions: Sequence[str],
    target: str | None,
) -> tuple[list[Tensor], Tensor]:
    """The losses of one micro-batch and their weighted sum, with their graph."""
    roles = sorted({role for loss in losses.values() for role in loss.reads})
    bf16 = str(settings.trainer.precision) == "bf16"
    with torch.autocast(adapter.model.device.type, torch.bfloat16, enabled=bf16):
        drawn = {role: _draw(count, adapter, losses, settings, captions, role) for role in roles}
        passes = {role: predicted(adapter, draw, role) for role, draw in drawn.items()}
        ctx = StepContext(adapter, passes, 0, 0, target)
        values = {name: loss(ctx) for name, loss in losses.items()}
    return list(values.values()), torch.stack([losses[name].weight * one for name, one in values.items()]).sum()


def _draw(
    count: Counting,
    adapter: Adapter,
    losses: Mapping[str, AbstractLoss],
    settings: RunSettings,
    captions: Sequence[str],
    role: Role,
) -> Draw:
    """Rows of a stream: their number, shapes and captions, and no picture."""
    how, model = settings.trainer, adapter.model
    total, sentences = how.batch_size, captions
    if role is Role.PRIOR:
        prior = asking(losses)
        total, sentences = prior.batch_size or total, [prior.prompt]
    rows = max(1, total // (how.accumulate * how.devices))
    x0, noise = (count.zeros(rows, *model.latent_shape, device=model.device) for _ in range(2))
    mask = None
    if role is Role.SUBJECT and adapter.concept.masks is not None:
        mask = count.zeros(rows, 1, *model.latent_shape[1:], device=model.device)
    t = model.path.draw_t(rows, stream(0, 0, "t")).to(model.device)
    return Draw(x0, noise, t, tuple(sentences[i % len(sentences)] for i in range(rows)), mask, Share(0, rows, rows))
