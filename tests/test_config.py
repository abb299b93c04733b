import pytest

from tests.conftest import ROOT, settings_of
from vcae.audio.config import MelConfig
from vcae.config import from_dict, load_config, to_dict
from vcae.errors import ConfigError
from vcae.model.config import AutoencoderConfig
from vcae.training.acoustic import AcousticRecipe
from vcae.training.config import (
    AutoencoderRecipe,
    CodecRecipe,
    ConversionRecipe,
    DenoiseRecipe,
    DiscoveryRecipe,
    GeneratorRecipe,
    PolishRecipe,
    RobustRecipe,
    TranscriberRecipe,
    VocoderRecipe,
)
from vcae.training.units import UnitTrainingRecipe

LadderRecipe, SwapRecipe = settings_of("ladder").LadderRecipe, settings_of("speaker_swap").SwapRecipe
EvaluateRecipe = settings_of("evaluate").EvaluateRecipe
RECIPES = {
    "autoencoder": AutoencoderRecipe,
    "vocoder": VocoderRecipe,
    "conversion": ConversionRecipe,
    "speaker_swap": SwapRecipe,
    "release": settings_of("release").ReleaseRecipe,
    "evaluate": EvaluateRecipe,
    "finetune": settings_of("finetune").FinetuneRecipe,
    "units": settings_of("units").UnitsRecipe,
    "discovery": DiscoveryRecipe,
    "vq": UnitTrainingRecipe,
    "vq_narrow": AutoencoderRecipe,
    "anomaly": settings_of("anomaly").AnomalyRecipe,
    "codec": CodecRecipe,
    "probe": settings_of("probe").ProbeRecipe,
    "denoise": DenoiseRecipe,
    "ladder": LadderRecipe,
    "generator": GeneratorRecipe,
    "transcribe": TranscriberRecipe,
    "text": settings_of("text").TextRecipe,
    "say": AcousticRecipe,
}
# Recipes of several steps, by the name of the file.
STEPS = {
    "others": settings_of("anomaly").OthersRecipe,
    "faults": settings_of("anomaly").FaultsRecipe,
    "polish": PolishRecipe,
    "robust": RobustRecipe,
    "lexicon": settings_of("transcribe").LexiconRecipe,
    "label": settings_of("transcribe").LabelRecipe,
    "prepare": settings_of("say").PrepareRecipe,
    "pronunciations": settings_of("say").PronunciationRecipe,
    "bank": settings_of("denoise").NoiseBankRecipe,
    "teach": settings_of("denoise").TeachRecipe,
    "test": settings_of("denoise").DenoiseTestRecipe,
    "converted": settings_of("denoise").DenoiseTestRecipe,
}
# And of one recipe alone.
RELEASES = {"codec": settings_of("codec").CodecReleaseRecipe}
TESTS = {"transcribe": settings_of("transcribe").TranscriberTestRecipe}
FILES = sorted((ROOT / "recipes").glob("*/conf/*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.parent.name}-{p.stem}")
def test_every_yaml_fits_its_dataclass(path):
    recipe = path.parent.parent.name
    release = RELEASES.get(recipe) if path.stem == "release" else None
    tested = TESTS.get(recipe) if path.stem == "test" else None
    load_config(release or tested or STEPS.get(path.stem, RECIPES[recipe]), path)


def test_there_are_yaml_files_for_every_recipe():
    assert {p.parent.parent.name for p in FILES} == set(RECIPES)


def test_round_trip():
    config = AutoencoderConfig()
    assert from_dict(AutoencoderConfig, to_dict(config)) == config
    plain = load_config(AutoencoderRecipe, ROOT / "recipes/autoencoder/conf/plain.yaml").model
    assert plain.speaker is None
    assert from_dict(AutoencoderConfig, to_dict(plain)) == plain


def test_frame_rate():
    assert MelConfig().frame_rate == 62.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mel": {"hop_size": 256}}, "unknown key mel.hop_size; the nearest valid key is hop_length"),
        ({"mel": {"n_mels": "eighty"}}, "mel.n_mels is 'eighty'; a value of type int is needed"),
        ({"mel": {"n_mels": True}}, "mel.n_mels is True; a value of type int"),
        ({"mel": {"f_max": 9000}}, r"f_max <= 8000.0 Hz; got 0.0 and 9000"),
        ({"mel": 3}, "mel is 3; a mapping"),
        ({"content": {"stride": 3}}, "content.stride is 3; allowed are 1, 2, 4"),
        ({"content": {"n_normalized": 9}}, "content.n_normalized is 9"),
        ({"content": {"variational": True, "latent_noise": 0.3}}, "latent_noise 0, as its noise is learned"),
        ({"content": {"variational": True}, "quantizer": {}}, "variational and a quantizer exclude each other"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(AutoencoderConfig, values)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (AutoencoderRecipe, {"kl_weight": 0.1}, "kl_weight is 0.1, but the latent is not variational"),
        (AutoencoderRecipe, {"free_bits": -1.0}, "free_bits is -1.0; it must not be negative"),
        (LadderRecipe, {"autoencoder": {}, "dims": [4, 0]}, r"dims is \(4, 0\)"),
        (LadderRecipe, {"autoencoder": {}, "dims": [4, 4]}, "each size may be listed only once"),
        (
            LadderRecipe,
            {"autoencoder": {}, "dims": [4], "kl_weights": [0.1]},
            "variational_dim is 16, which is not one of dims",
        ),
    ],
)
def test_bad_recipes_are_named(cls, values, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(cls, values)


def test_lists_become_tuples():
    recipe = from_dict(EvaluateRecipe, {"manifest": "m.csv", "systems": ["vcae", "target"]})
    assert recipe.systems == ("vcae", "target")
    with pytest.raises(ConfigError, match=r"systems\[1\] is 3; a value of type str"):
        from_dict(EvaluateRecipe, {"manifest": "m.csv", "systems": ["vcae", 3]})
    with pytest.raises(ConfigError, match="systems is 'vcae'; a value of type tuple"):
        from_dict(EvaluateRecipe, {"manifest": "m.csv", "systems": "vcae"})


def test_missing_key_is_named():
    with pytest.raises(ConfigError, match="lacks second"):
        from_dict(SwapRecipe, {"first": "a.wav"})


def test_base_and_overrides(tmp_path):
    (tmp_path / "base.yaml").write_text("train:\n  max_steps: 7\n  seed: 3\n")
    (tmp_path / "b.yaml").write_text("base: base.yaml\ntrain:\n  seed: 4\n")
    recipe = load_config(VocoderRecipe, tmp_path / "b.yaml", ["train.learning_rate=0.5", "data.corpus_weights={a: 2.0}"])
    assert (recipe.train.max_steps, recipe.train.seed, recipe.train.learning_rate) == (7, 4, 0.5)
    assert recipe.data.corpus_weights == {"a": 2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "holds list"),
        ("base: c.yaml", "its own base"),
        ("trian: {}", "nearest valid key is train"),
    ],
)
def test_bad_files_are_named(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(VocoderRecipe, tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(VocoderRecipe, tmp_path / "nothing.yaml")
