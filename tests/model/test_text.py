from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from palp_lab.composition import compose
from palp_lab.model.sdxl import SdxlModel
from palp_lab.model.text import ClipText, overlay, pack
from palp_lab.model.unet import UNetModel
from palp_lab.parts import open_model
from palp_lab.tokens.learned import LearnedTokens
from palp_lab.types import UserError
from tests.contracts.parts import concept
from tests.micro import LENGTH, WORDS

PROMPTS = ["", "a photo of a cat", "A  Sketch of a cat, in Paris!", "sks cat qwxz", "a photo of a " + "cat " * 20]


@pytest.mark.parametrize("placeholders", [{}, {"<v>": [0]}], ids=["none", "unused"])
def test_without_placeholder_the_ids_are_the_stock_tokenizers(micro: UNetModel, placeholders: dict) -> None:
    words = micro.tokenize(PROMPTS, placeholders)
    stock = micro.text.tokenizer(PROMPTS, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    assert torch.equal(words.ids[0], stock)
    assert (words.slot[0] == -1).all()


def test_every_word_of_the_micro_vocabulary_is_one_token(micro: UNetModel) -> None:
    assert all(len(micro.text.pieces(word)) == 1 for word in WORDS.split())
    assert len(micro.text.pieces("qwxz")) > 1


def test_a_placeholder_takes_a_position_per_vector_and_leaves_the_other_ids_alone(micro: UNetModel) -> None:
    words = micro.tokenize(["a photo of <v> cat in paris"], {"<v>": [3, 5]})
    ids, slot = words.ids[0][0].tolist(), words.slot[0][0].tolist()
    before, after = micro.text.pieces("a photo of"), micro.text.pieces("cat in paris")
    assert ids[1 : 1 + len(before)] == before
    assert slot[4:6] == [3, 5] and sum(s >= 0 for s in slot) == 2
    assert ids[6 : 6 + len(after)] == after
    assert ids[6 + len(after)] == micro.text.tokenizer.eos_token_id and len(ids) == LENGTH


@pytest.mark.parametrize("prompt", ["<v>", "<v>'s hat", "a (<v>), in paris", "hat<v>cat"])
def test_a_placeholder_is_found_beside_punctuation(micro: UNetModel, prompt: str) -> None:
    assert (micro.tokenize([prompt], {"<v>": [0]}).slot[0] == 0).sum() == 1


def test_a_placeholder_of_letters_is_a_whole_word_only(micro: UNetModel) -> None:
    slot = micro.tokenize(["qq qqq aqq qq-hat"], {"qq": [0]}).slot[0]
    assert (slot == 0).sum() == 2


def test_a_placeholder_that_contains_another_is_read_as_itself(micro: UNetModel) -> None:
    slot = micro.tokenize(["<v> and <v>s"], {"<v>": [0], "<v>s": [1]}).slot[0][0]
    assert slot[slot >= 0].tolist() == [0, 1]


def test_colliding_placeholders_are_refused(micro: UNetModel) -> None:
    with pytest.raises(UserError, match="collide"):
        micro.tokenize(["a"], {"<v>": [0], "<V>": [1]})


def test_a_long_prompt_names_the_words_that_would_be_cut(micro: UNetModel) -> None:
    exact = "cat " * (LENGTH - 2)
    assert micro.tokenize([exact]).ids[0].shape == (1, LENGTH)
    with pytest.raises(UserError, match=r"'hat <v> snow' would be cut") as caught:
        micro.tokenize([exact + "hat <v> snow"], {"<v>": [0]})
    assert "\n" not in str(caught.value)


def test_a_long_prompt_is_cut_where_that_is_asked_for_and_said_once(
    micro_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = UNetModel.open(micro_path, long_prompts="cut")
    long = "cat " * (LENGTH - 2) + "hat snow"
    stock = model.text.tokenizer([long], padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    for _ in range(2):
        assert torch.equal(model.tokenize([long]).ids[0], stock.input_ids)
    assert [record.message.count("'hat snow' is cut") for record in caplog.records] == [1]


def test_a_learned_word_is_never_cut(micro_path: Path) -> None:
    model = UNetModel.open(micro_path, long_prompts="cut")
    with pytest.raises(UserError, match="and with it the learned word"):
        model.tokenize(["cat " * (LENGTH - 2) + "<v>"], {"<v>": [0]})


@pytest.mark.parametrize("how", [{"long_prompts": "ignore"}, {"windows": 0}])
def test_other_ways_with_long_prompts_are_refused(micro_path: Path, how: dict) -> None:
    with pytest.raises(UserError, match=f"model.{next(iter(how))}="):
        UNetModel.open(micro_path, **how)


def test_windows_are_prompts_of_their_own_one_after_the_other(micro_path: Path, micro: UNetModel) -> None:
    model = UNetModel.open(micro_path, windows=2)
    first, second = "cat " * (LENGTH - 2), "a hat in the snow"
    cond, parts = model.base_text([first + second]), micro.base_text([first, second])
    assert cond.tokens.shape == (1, 2 * LENGTH, 16)
    assert model.fingerprint != micro.fingerprint, "kept pictures of the base are told apart by it"
    torch.testing.assert_close(cond.tokens[0, :LENGTH], parts.tokens[0])
    torch.testing.assert_close(cond.tokens[0, LENGTH:], parts.tokens[1])
    short = model.base_text(["a cat", first + second])
    torch.testing.assert_close(short.tokens[0, LENGTH:], micro.base_text([""]).tokens[0])
    assert torch.equal(model.base_text(["a cat"]).tokens[0], short.tokens[0]), "a row does not depend on its company"
    x_t = torch.randn(1, *model.latent_shape)
    assert model.predict(x_t, torch.tensor([3]), cond).raw.shape == x_t.shape
    with pytest.raises(UserError, match=r"model\.windows=3"):
        model.tokenize([first * 2 + "hat"])


def test_windows_split_no_word_and_no_learned_word(micro_path: Path) -> None:
    model = UNetModel.open(micro_path, windows=2)
    room, pieces = LENGTH - 2, model.text.pieces("qwxz")
    before = "cat " * (room - len(pieces) + 1)
    ids = model.tokenize([before + "qwxz"]).ids[0][0].tolist()
    assert ids[LENGTH + 1 : LENGTH + 1 + len(pieces)] == pieces
    assert ids[LENGTH - len(pieces)] == model.text.tokenizer.eos_token_id
    words = model.tokenize(["cat " * (room - 1) + "<v> hat"], {"<v>": [0, 1]})
    assert (words.slot[0][0] >= 0).nonzero().flatten().tolist() == [LENGTH + 1, LENGTH + 2]
    vectors = torch.randn(2, 16, requires_grad=True)
    cond = model.encode_text(words, (vectors,))
    assert cond.concept_at.tolist() == [LENGTH + 2]
    cond.tokens[0, LENGTH:].square().sum().backward()
    assert vectors.grad is not None and (vectors.grad.abs().sum(1) > 0).all()


def test_a_word_longer_than_a_window_is_split(micro: UNetModel) -> None:
    pieces = [(i, -1) for i in range(7)]
    windows, rest = pack([pieces], 3, 2)
    assert windows == [pieces[:3], pieces[3:6]] and rest == pieces[6:]
    assert pack([pieces[:2], pieces[2:4]], 3, 3) == ([pieces[:2], pieces[2:4], []], [])


def test_encoding_equals_the_stock_text_encoder_and_leaves_no_hook(micro: UNetModel) -> None:
    words = micro.tokenize(PROMPTS)
    cond = micro.encode_text(words)
    assert torch.equal(cond.tokens, micro.text.encoder(words.ids[0]).last_hidden_state)
    assert (cond.concept_at == -1).all() and cond.pooled is None
    assert not micro.text.encoder.get_input_embeddings()._forward_hooks


def test_a_learned_vector_equal_to_a_word_encodes_as_that_word(micro: UNetModel) -> None:
    vector = micro.word_vectors("cat")
    found = micro.encode_text(micro.tokenize(["a photo of <v> in paris"], {"<v>": [0]}), vector)
    torch.testing.assert_close(found.tokens, micro.base_text(["a photo of cat in paris"]).tokens, rtol=0, atol=0)
    assert found.concept_at.tolist() == [4]


def test_gradients_reach_the_vectors_that_are_named_and_nothing_else(micro: UNetModel) -> None:
    vectors = torch.randn(3, 16, requires_grad=True)
    words = micro.tokenize(["a photo of <v>"], {"<v>": [0, 2]})
    table = micro.text.table.clone()
    micro.encode_text(words, (vectors,)).tokens[:, -1].square().sum().backward()
    assert vectors.grad is not None
    assert vectors.grad[[0, 2]].abs().sum(1).min() > 0 and vectors.grad[1].abs().max() == 0
    assert micro.text.table.grad is None and torch.equal(table, micro.text.table)


def test_word_vectors_are_a_copy(micro: UNetModel) -> None:
    before = micro.text.table.clone()
    (vector,) = micro.word_vectors("cat")
    vector.zero_()
    assert torch.equal(before, micro.text.table)
    assert micro.word_vectors("qwxz")[0].shape[0] == len(micro.text.pieces("qwxz"))


def test_the_overlay_works_for_the_nested_layout_too(micro: UNetModel) -> None:
    from transformers import CLIPTextModelWithProjection

    nested = CLIPTextModelWithProjection(micro.text.encoder.config).eval()
    text = ClipText(micro.text.tokenizer, nested)
    cat = text.table[text.pieces("cat")].detach()
    ids, slots = text.tokenize(["a photo of <v>"], {"<v>": [0]})
    stock, _ = text.tokenize(["a photo of cat"], {})
    with torch.no_grad():
        found: Tensor = text.encode(ids, slots, cat).pooled
        assert torch.equal(found, nested(stock).text_embeds)


def test_the_overlay_goes_when_the_block_fails() -> None:
    embedding = torch.nn.Embedding(4, 2)
    with pytest.raises(RuntimeError, match="inside"), overlay(embedding, torch.zeros(1, 1).long(), torch.ones(1, 2)):
        raise RuntimeError("inside")
    assert torch.equal(embedding(torch.tensor([[1]])), embedding.weight[1].view(1, 1, 2))


def test_pooling_of_old_configurations_stays_at_the_end_of_the_prompt(micro: UNetModel) -> None:
    """They pool at the highest id: no id above EOS may stand under a learned vector."""
    assert micro.text.blank < micro.text.tokenizer.eos_token_id


def test_locate_finds_the_last_piece_of_the_last_occurrence(micro: UNetModel) -> None:
    assert micro.locate(["a cat and a cat", "a dog", "cat"], "cat").tolist() == [5, -1, 1]
    pieces = len(micro.text.pieces("qwxz"))
    assert micro.locate(["a qwxz cat"], "qwxz").tolist() == [1 + pieces]


def test_base_text_does_not_depend_on_company_order_or_mode(micro_path: Path) -> None:
    one, other = UNetModel.open(micro_path), UNetModel.open(micro_path)
    with torch.inference_mode():
        first = one.base_text(["a cat", "a dog in paris", "a cat"])
    second = other.base_text(["a dog in paris"])
    assert torch.equal(first.tokens[0], first.tokens[2])
    assert torch.equal(one.base_text(["a dog in paris"]).tokens, second.tokens)
    kept = one.base_text(["a cat"]).tokens
    assert not kept.requires_grad and not kept.is_inference()
    with torch.autocast("cpu", torch.bfloat16):
        assert one.base_text(["a hat"]).tokens.dtype == torch.float32


def test_the_record_names_the_pieces_of_a_class_and_its_anchor(micro: UNetModel, micro_sdxl: SdxlModel) -> None:
    assert micro.record("red cat") == {
        "word": "red cat", "pieces": [["red", "cat"]], "anchor": ["cat"], "long_prompts": "error", "windows": 1,
    }  # fmt: skip
    assert len(micro.record("qwxz")["pieces"][0]) > 1 and micro.record("qwxz")["anchor"][0].endswith("z")
    said = micro_sdxl.record("red cat")
    assert said["anchor"] == ["cat", "cat"]
    assert said["told"] == {"original_size": [32, 32], "crop": [0, 0], "target_size": [32, 32]}


def test_the_anchor_is_what_learned_words_start_from_and_where_the_class_is_found(micro: UNetModel) -> None:
    tokens = LearnedTokens()
    tokens.bind(micro, concept(superclass="red cat"))
    assert torch.equal(tokens.vectors[0].detach(), micro.word_vectors("cat")[0])
    assert micro.locate(["a photo of a red cat in paris"], "red cat").tolist() == [6]


@pytest.mark.parametrize("choice", ["tiny", "tiny_small", "tiny_flow", "tiny_flow_unet"])
def test_what_is_advised_for_a_long_prompt_helps(choice: str) -> None:
    """Every key the error names is one of the model's, and does what it says."""
    config = compose("run", f"model={choice}")
    model = open_model(config)
    long = "a photo of a cat " + "in the snow " * 20
    with pytest.raises(UserError, match="would be cut; shorten the prompt, or give") as error:
        model.tokenize([long])
    advised = re.findall(r"model\.(\w+)=(\w+)", str(error.value))
    assert ("long_prompts", "cut") in advised
    assert {key for key, _ in advised} <= config.model.keys()
    given = {"long_prompts": "cut", "windows": "3"}
    for key, _ in advised:
        helped = open_model(compose("run", f"model={choice}", f"model.{key}={given[key]}"))
        assert len(helped.tokenize([long])) == 1
