"""Networks that read or write the content latent follow another content encoder by a linear map."""

import runpy

import pytest
import torch

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def follow():
    return runpy.run_path(str(ROOT / "recipes/release/follow.py"))


def test_the_map_is_found_and_layers_apply_it(follow, capsys):
    torch.manual_seed(0)
    old, turn, shift = torch.randn(500, 6), torch.randn(6, 6), torch.randn(6)
    new = old @ turn + shift
    matrix, offset = follow["fit"](old, new)
    assert (old @ matrix + offset - new).abs().max() < 0.1
    assert "explained: 1.000" in capsys.readouterr().out

    reader = torch.nn.Conv1d(6, 3, 5)
    wanted = reader((old @ matrix + offset).T[None])
    follow["map_input"](reader, matrix, offset)
    assert torch.allclose(reader(old.T[None]), wanted, atol=1e-3)

    writer = torch.nn.Linear(4, 8)
    x = torch.randn(10, 4)
    before = writer(x)
    follow["map_output"](writer, matrix, offset)
    assert torch.allclose(writer(x)[:, :6], before[:, :6] @ matrix + offset, atol=1e-3)
    assert torch.equal(writer(x)[:, 6:], before[:, 6:])


def test_weights_are_mixed_by_their_share(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "recipes/release"))
    mix = runpy.run_path(str(ROOT / "recipes/release/join.py"))["mix"]
    later, earlier = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    wanted = 0.25 * later.weight + 0.75 * earlier.weight
    mix(later, earlier, 0.25)
    assert torch.allclose(later.weight, wanted)
