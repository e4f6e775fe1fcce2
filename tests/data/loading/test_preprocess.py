import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from litlab.data.loading import Preprocess, open_split
from made_data import make_raw, make_spec, prepare_raw


@pytest.mark.parametrize("channels", [1, 3])
def test_images_become_floats_and_are_normalized_by_channel(channels) -> None:
    spec = make_spec("image", (channels, 4, 5))
    x = torch.randint(0, 256, (6, channels, 4, 5), dtype=torch.uint8)
    preprocess = Preprocess(spec)
    floats = preprocess.to_float(x)
    assert floats.dtype == torch.float32
    np.testing.assert_allclose(floats, x.numpy() / 255, rtol=1e-6)
    for channel in range(channels):
        expected = (x[:, channel].numpy() / 255 - spec.mean[channel]) / spec.std[channel]
        np.testing.assert_allclose(preprocess(x)[:, channel], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["tabular", "sequence"])
def test_floats_are_normalized_by_feature_or_channel(kind) -> None:
    spec = make_spec(kind)
    x = torch.randn(6, *spec.shape)
    kept = x.clone()
    tail = (1,) * (len(spec.shape) - 1)
    mean, std = np.reshape(spec.mean, (-1, *tail)), np.reshape(spec.std, (-1, *tail))
    np.testing.assert_allclose(Preprocess(spec)(x), (x.numpy() - mean) / std, rtol=1e-4, atol=1e-6)
    assert torch.equal(x, kept)


def test_bytes_are_not_changed_in_place() -> None:
    x = torch.full((2, 1, 6, 5), 200, dtype=torch.uint8)
    Preprocess(make_spec("image"))(x)
    assert (x == 200).all()


def test_text_stays_ids() -> None:
    x = torch.tensor([[1, 2, 0, 0, 0, 0, 0, 0]], dtype=torch.int32)
    ids = Preprocess(make_spec("text"))(x)
    assert ids.dtype == torch.int64
    assert torch.equal(ids, x.long())


def test_nothing_of_it_is_saved_with_the_weights() -> None:
    assert not Preprocess(make_spec("image")).state_dict()


def test_all_splits_are_scaled_as_scikit_learn_scales_by_train(tmp_path, monkeypatch) -> None:
    spec = prepare_raw(make_raw("tabular"), tmp_path, monkeypatch)
    scaler = StandardScaler().fit(open_split(tmp_path, spec, "train").x.numpy())
    for name in ("train", "val", "test"):
        x = open_split(tmp_path, spec, name).x
        np.testing.assert_allclose(
            Preprocess(spec)(x), scaler.transform(x.numpy()), rtol=1e-4, atol=1e-5
        )
