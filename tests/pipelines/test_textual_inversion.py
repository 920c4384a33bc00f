from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import CLIPTokenizer

from hotshot_jax.conditioning.text.prompt_weighting import Vocabulary, chunk_prompt, parse_weights
from hotshot_jax.conditioning.text.textual_inversion import (
    TextualInversion,
    extended_config,
    extended_table,
    extended_vocabulary,
    parse_embedding,
    read_textual_inversion,
)
from hotshot_jax.convert.tensors.file_content import refuse_pickle
from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.errors import HotshotError, UsageError

WIDTHS = {"text_encoder": 24, "text_encoder_2": 40}
TOKENIZER = Path(__file__).parents[1] / "golden" / "e2e" / "tokenizer"


def vectors(count, width, dtype=np.float16):
    return np.random.default_rng([count, width]).normal(size=(count, width)).astype(dtype)


def write(tmp_path, **tensors):
    path = tmp_path / "style.safetensors"
    save_file(tensors, path)
    return open_file(path)


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.of(CLIPTokenizer.from_pretrained(TOKENIZER))


@pytest.mark.parametrize("keys", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_vectors_for_both_encoders(tmp_path, keys):
    first, second = vectors(3, 24), vectors(3, 40)
    source = write(tmp_path, **dict(zip(keys, (first, second), strict=True)))
    inversion = read_textual_inversion(source, "<style>", WIDTHS)
    assert inversion.token == "<style>" and len(inversion) == 3
    np.testing.assert_array_equal(inversion.vectors["text_encoder"], first.astype(np.float32))
    np.testing.assert_array_equal(inversion.vectors["text_encoder_2"], second.astype(np.float32))


def test_a_single_vector_without_axis(tmp_path):
    source = write(tmp_path, clip_l=vectors(1, 24)[0], clip_g=vectors(1, 40)[0])
    assert len(read_textual_inversion(source, "x", WIDTHS)) == 1


BOTH = {"clip_l": vectors(2, 24), "clip_g": vectors(2, 40)}
NAN = np.full((1, 24), np.nan, np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"clip_l": vectors(2, 32), "clip_g": vectors(2, 40)}, r"clip_l has shape \[2, 32\].* 24"),
        ({"clip_l": vectors(2, 24), "clip_g": vectors(2, 24)}, r"clip_g has shape \[2, 24\].* 40"),
        ({"clip_l": vectors(2, 24), "clip_g": vectors(3, 40)}, "2 vectors for the first.*, 3 for"),
        ({"clip_l": vectors(0, 24), "clip_g": vectors(0, 40)}, "shape"),
        ({"clip_l": NAN, "clip_g": vectors(1, 40)}, "NaN"),
        ({"clip_l": vectors(1, 24, np.int8), "clip_g": vectors(1, 40)}, "int8"),
        ({"emb_params": vectors(2, 768)}, "Stable Diffusion 1.x; SDXL's has clip_l and clip_g"),
        ({"<style>": vectors(2, 1024)}, "Stable Diffusion 2.x"),
        ({"clip_l": vectors(2, 24)}, "expected clip_l and clip_g, found clip_l"),
        ({"<style>": vectors(2, 768)}, r"Stable Diffusion 1.x, .*learned_embeds_2"),
        ({"<style>": vectors(2, 1280)}, "second half"),
        (BOTH | {"t5xxl": vectors(2, 4096)}, "Stable Diffusion 3: it holds t5xxl"),
        (BOTH | {"clip_l_out": vectors(2, 24)}, r"output embeddings \(clip_l_out\)"),
        (
            {"clip_l_out": vectors(2, 24), "clip_g_out": vectors(2, 40)},
            r"output embeddings \(clip_g_out, clip_l_out\)",
        ),
        (BOTH | {"clip_h": vectors(2, 40)}, "clip_h belong to no textual inversion"),
        ({"x.lora_down.weight": vectors(2, 24)}, "is a LoRA; give it with `loras`"),
        ({"ip_adapter.1.to_k_ip.weight": vectors(2, 24)}, "is an IP-Adapter"),
        ({"other": vectors(2, 24)}, "no textual inversion for SDXL"),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, message):
    with pytest.raises(HotshotError, match=message):
        read_textual_inversion(write(tmp_path, **tensors), "x", WIDTHS)


def inversion(token, count):
    return TextualInversion(
        token, {name: vectors(count, width, np.float32) for name, width in WIDTHS.items()}
    )


def test_words_become_ids_behind_the_table(vocabulary):
    words = [inversion("<style>", 2), inversion("panda2", 1)]
    extended = extended_vocabulary(vocabulary, words, 1000)
    start, between = vocabulary.encode("a photo of"), vocabulary.encode(" and")
    assert extended.encode("a photo of <style> and panda2") == [*start, 1000, 1001, *between, 1002]
    assert extended.encode("a photo of") == list(start)
    assert extended.encode("xpanda2 panda23") == list(vocabulary.encode("xpanda2 panda23"))
    assert extended.encode("<style>") == [1000, 1001]


def test_longer_words_come_first(vocabulary):
    words = [inversion("ink", 1), inversion("ink-wash", 1)]
    assert extended_vocabulary(vocabulary, words, 1000).encode("ink-wash") == [1001]


def test_words_can_be_weighted(vocabulary):
    extended = extended_vocabulary(vocabulary, [inversion("<style>", 2)], 1000)
    chunks = chunk_prompt(parse_weights("a (<style>:1.4)"), extended)
    assert (chunks.weights[chunks.ids >= 1000] == np.float32(1.4)).all()
    assert (chunks.ids >= 1000).sum() == 2


def test_no_words_change_nothing(vocabulary):
    assert extended_vocabulary(vocabulary, [], 1000) is vocabulary


def test_ids_become_words_again(vocabulary):
    words = [inversion("<style>", 2), inversion("panda2", 1)]
    extended = extended_vocabulary(vocabulary, words, 1000)
    ids = extended.encode("a photo of <style> panda2 and snow")
    assert extended.decode(ids).split() == "a photo of <style> panda2 and snow".split()


def test_table(vocabulary):
    table = vectors(10, 24, np.float32)
    words = [inversion("a", 2), inversion("b", 1)]
    extended = extended_table(table, words, "text_encoder")
    assert extended.shape == (13, 24) and extended.dtype == np.float32
    np.testing.assert_array_equal(extended[:10], table)
    np.testing.assert_array_equal(extended[12:], words[1].vectors["text_encoder"])


def test_the_end_of_the_text_stays_where_it_is(vocabulary):
    """SDXL's configuration takes the largest id for the end, which a new word would be."""
    config = {"hidden_size": 24, "vocab_size": 1000, "eos_token_id": 2}
    extended = extended_config(config, [inversion("a", 2)], vocabulary)
    assert extended == {"hidden_size": 24, "vocab_size": 1002, "eos_token_id": vocabulary.end}
    assert extended_config({}, [inversion("a", 2)], vocabulary)["vocab_size"] == 49410


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("dir/style.safetensors", ("dir/style.safetensors", "style")),
        ("style.safetensors:<s>", ("style.safetensors", "<s>")),
        ("someone/style@main", ("someone/style@main", "style")),
        ("someone/style:word", ("someone/style", "word")),
    ],
)
def test_path_and_word(argument, expected):
    assert parse_embedding(argument) == expected


@pytest.mark.parametrize("argument", ["a.safetensors:", "a.safetensors:b c", ":x", "my style.pt"])
def test_word_that_is_none(argument):
    with pytest.raises(UsageError, match="`embeddings`"):
        parse_embedding(argument)


def test_pickles_are_not_opened():
    with pytest.raises(HotshotError, match="pickle"):
        refuse_pickle(Path("style.pt"))
    refuse_pickle(Path("style.safetensors"))
