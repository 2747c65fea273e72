"""DINOv2 and CLIP on tiny random models in the hub's format; nothing is fetched."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from generama.errors import DataError, UnsafeFile
from generama.metrics.vision_transformers import CLIP, DINOV2, clip_features, dinov2_features

transformers = pytest.importorskip("transformers", reason="needs the extra 'transformers'")
CPU = torch.device("cpu")
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
MADE_BY = {"dinov2": dinov2_features, "clip": clip_features}
PUBLISHED = {"dinov2": DINOV2, "clip": CLIP}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of each kind: CLIP's holds its text model too, as the published one does."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    dinov2 = transformers.Dinov2Config(**SIZES, image_size=42, patch_size=14)
    transformers.Dinov2Model(dinov2).save_pretrained(folder / "dinov2")
    vision = {**SIZES, "intermediate_size": 31, "image_size": 224, "patch_size": 56}
    text = {"hidden_size": 16, "intermediate_size": 17, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = transformers.CLIPConfig(text_config={**text, "vocab_size": 11}, vision_config=vision, projection_dim=13)
    transformers.CLIPModel(clip).save_pretrained(folder / "clip")
    return folder


@pytest.fixture
def images():
    return torch.rand(5, 3, 31, 31, generator=torch.Generator().manual_seed(1)) * 2 - 1


def copied(folder, target):
    """The files of a model in another folder, to be changed there."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_features_are_the_class_token_of_pictures_resized_by_pil(models, images, tmp_path, name):
    extractor = MADE_BY[name](models / name, tmp_path, CPU)
    seen = extractor(images)
    whole = getattr(transformers, PUBLISHED[name].model).from_pretrained(models / name).eval()
    mean, std = np.array(PUBLISHED[name].mean), np.array(PUBLISHED[name].std)
    for i in range(2):
        byte = np.rint((images[i].permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8)
        resized = np.asarray(Image.fromarray(byte).resize((224, 224), Image.Resampling.BICUBIC)) / 255
        shown = torch.from_numpy((resized - mean) / std).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            wanted = whole(pixel_values=shown).pooler_output[0]
        assert (seen.values[i] - wanted).norm() < 0.02 * wanted.norm()
    assert seen.values.shape == (5, 24) and seen.probs is None and not torch.allclose(seen.values[0], seen.values[1])
    assert torch.allclose(extractor(images[3:4]).values, seen.values[3:4], atol=1e-4)


def test_the_published_scales_are_those_of_the_models_own_processors():
    assert (DINOV2.mean, DINOV2.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    from transformers.utils import constants

    assert list(CLIP.mean) == constants.OPENAI_CLIP_MEAN and list(CLIP.std) == constants.OPENAI_CLIP_STD
    assert list(DINOV2.mean) == constants.IMAGENET_DEFAULT_MEAN and list(DINOV2.std) == constants.IMAGENET_DEFAULT_STD


def test_other_weights_have_another_name_and_key(models, tmp_path):
    first = dinov2_features(models / "dinov2", tmp_path, CPU)
    assert first.name.startswith("dinov2-") and len(first.name) == len("dinov2-") + 8
    changed = copied(models / "dinov2", tmp_path / "changed")
    tensors = safetensors.torch.load_file(changed / "model.safetensors")
    tensors["layernorm.bias"] += 1
    safetensors.torch.save_file(tensors, changed / "model.safetensors", {"format": "pt"})
    second = dinov2_features(changed, tmp_path, CPU)
    assert second.name != first.name and second.key != first.key
    assert dinov2_features(models / "dinov2", tmp_path, CPU).key == first.key


def test_missing_weights_are_an_error_and_not_drawn_at_random(models, tmp_path):
    folder = copied(models / "dinov2", tmp_path / "lacking")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    del tensors["layernorm.weight"]
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"1 weights are missing, the first layernorm\.weight"):
        dinov2_features(folder, tmp_path, CPU)
    (folder / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(DataError, match="cannot be read as a Dinov2Model"):
        dinov2_features(folder, tmp_path, CPU)


def test_a_folder_runs_no_code(models, tmp_path):
    folder = copied(models / "dinov2", tmp_path / "evil")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(canary)!r}).touch()\n")
    assert dinov2_features(folder, tmp_path, CPU)(torch.zeros(1, 1, 8, 8)).values.shape == (1, 24)
    assert not canary.exists()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsafeFile, match="pickled"):
        dinov2_features(folder, tmp_path, CPU)


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_offline_it_says_what_to_get(tmp_path, monkeypatch, name):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError) as error:
        MADE_BY[name](None, tmp_path, CPU)
    published = PUBLISHED[name]
    wanted = (published.repository, published.revision, published.weights.sha256, f"--extractor {name}:FOLDER")
    assert all(part in str(error.value) for part in wanted) and error.value.exit_code == 3
    with pytest.raises(DataError, match=r"has no config\.json and no model\.safetensors"):
        MADE_BY[name](tmp_path, tmp_path, CPU)
