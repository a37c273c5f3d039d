"""The benchmarks compare like with like, and their commands write what they say.

No test asserts a time.
"""

import json

import pandas as pd
import pytest

import mmclust as mm
from benchmarks import early_stopping, epochs, n_clusters, real_pictures
from mmclust.experiments import epoch_cost
from tools import compare_variants, study_encoders

SMALL_TOWER = "ViT-S-32-alt"


def test_both_sides_of_the_epoch_benchmark_end_at_the_same_loss(tmp_path, monkeypatch, capsys):
    """`compare` raises where they do not; here on 6 images and a small tower."""
    json_file = tmp_path / "rows.json"
    command = ["epochs", "-n", "6", "--architecture", SMALL_TOWER, "--json", str(json_file)]
    monkeypatch.setattr("sys.argv", command)
    epochs.main()
    rows = json.loads(json_file.read_text())
    assert [(row["method"], row["reference"]) for row in rows] == [
        ("MultiMaP", "frozen"),
        ("MultiMaP", "released"),
        ("MultiSub", "frozen"),
        ("MultiSub", "frozen, trunk in every batch"),
        ("MultiSub", "released"),
        ("MultiDProxy", "frozen"),
        ("MultiDProxy", "frozen, negatives apart"),
    ]
    for row in rows:
        assert row["n"] == 6
        assert row["ratio"] == pytest.approx(row["reference_seconds"] / row["seconds"])
        assert row["loss"] == pytest.approx(row["reference_loss"], rel=1e-3)
    assert "MultiSub" in capsys.readouterr().out


def test_a_reference_that_computes_something_else_is_an_error(monkeypatch):
    def zeros(self, h, batch, projection):
        return h[batch] @ projection * 0

    monkeypatch.setattr(epoch_cost.TrunkInEveryBatch, "_image_side", zeros)
    with pytest.raises(RuntimeError, match=r"MultiSub.*'released'"):
        epoch_cost.compare([epoch_cost.AUTHORS_WAY["MultiSub"]], n=6, architecture=SMALL_TOWER)


def test_bytes_that_autograd_saves_are_counted():
    import torch

    from mmclust.experiments.epoch_cost import SavedTensorCounter

    x = torch.ones(10, 4, requires_grad=True)
    layer = torch.nn.Linear(4, 3)
    counter = SavedTensorCounter(layer)
    with counter:
        # Saved are the 40 floats of x, for the weights' gradient, and the 30 of exp's result; the
        # layer's weights do not count.
        y = layer(x).exp()
        assert counter.live == counter.peak == 4 * (40 + 30)
        (y + y.exp()).sum().backward()
        assert counter.peak == 4 * (40 + 30 + 30)
        del y
    assert counter.live == 0


def test_the_authors_way_keeps_more_memory():
    images = mm.load_dataset("tuning-fruit", n=24, seed=905).images
    rows = mm.kept_memory(images, methods=("MultiMaP", "MultiDProxy"))
    megabytes = rows.pivot(index="method", columns="way", values="megabytes")
    assert (megabytes["authors' way"] > 3 * megabytes["ours"]).all()
    assert (megabytes["ours"] > 0.01).all()


def test_epoch_times_are_two_rows_per_method():
    rows = mm.epoch_times(n=6, methods=("MultiMaP",))
    assert rows["way"].tolist() == ["authors' way", "ours"]
    assert set(rows["method"]) == {"MultiMaP"} and rows["seconds"].gt(0).all()


def test_the_scaling_table_has_a_slope_per_method():
    rows = epochs.scaling(sizes=(100, 200))
    methods = {"MultiMaP", "MultiSub", "MultiSub, Phase II", "MultiDProxy"}
    assert set(rows["method"]) == methods and set(rows["n"]) == {100, 200}
    assert rows.groupby("method")["slope"].nunique().eq(1).all()


def test_estimates_of_the_number_of_clusters_are_judged():
    rows = pd.DataFrame(
        {
            "criterion": ["a"] * 3 + ["b"] * 3,
            "seed": [0, 1, 2] * 2,
            "M": [4] * 3 + [20] * 3,
            "auto": [4, 4, 9, 22, 22, 30],
            "features": [20] * 6,
        }
    )
    judged = n_clusters.judge(rows).set_index("estimate")
    auto = judged.loc["auto"]
    assert auto["criteria exact"] == 1 and auto["criteria within"] == 2
    assert auto["exact"] == pytest.approx(2 / 6) and auto["within"] == pytest.approx(4 / 6)
    assert auto["mean error"] == pytest.approx((5 + 2 + 2 + 10) / 6)
    assert judged.loc["silhouette on image features", "criteria exact"] == 1
    assert judged.loc["always 5", "criteria within"] == 1


def test_numbers_of_clusters_are_estimated_on_real_worlds(mini, monkeypatch):
    monkeypatch.setattr(n_clusters, "CRITERIA", {"fruit": ["color"]})
    rows = n_clusters.estimate("MultiSub", "tuning", [110], 60, mini)
    assert list(rows.columns) == ["criterion", "seed", "M", "auto", "features"]
    assert abs(rows["auto"][0] - 6) <= 2


def test_early_stopping_is_compared_on_the_same_data(mini, monkeypatch):
    monkeypatch.setattr(early_stopping, "CRITERIA", {"tuning-fruit": ["color"]})
    row = early_stopping.compare("MultiMaP", 110, 40, mini, full={"epochs": 150}).iloc[0]
    assert row["full epochs"] == 150 > row["stopped epochs"]
    difference = abs(row["stopped loss"] - row["full loss"]) / abs(row["full loss"])
    assert row["loss, relative difference"] == pytest.approx(difference)


def test_the_table_of_variants():
    profile = mm.load_profile()
    settings = compare_variants.variants(profile)
    released = profile["released"]["MultiMaP"]
    assert settings["MultiMaP released, prompt"] == ("MultiMaP", released, "prompt")
    compared = {name for pair in compare_variants.comparisons(settings) for name in pair}
    assert compared <= settings.keys()
    rows = pd.DataFrame(
        {"row": "a", "seed": [0, 0, 1, 1], "criterion": ["x", "y"] * 2, "NMI": [0.5, 0.7, 0.6, 0.8]}
    )
    assert compare_variants.table(rows).loc["a", "mean"].startswith("0.650 ± ")


def test_the_report_on_real_pictures_has_published_values_in_rows_of_their_own():
    axes = {"method": ["KMeans", "MultiSub"], "seed": [0, 1]}
    rows = pd.MultiIndex.from_product(axes.values(), names=axes).to_frame(index=False)
    rows = rows.assign(dataset="card-test", criterion="suits", encoder="photo", NMI=rows["seed"])
    table = real_pictures.table_of(rows)
    assert list(table["encoder"]) == ["photo", "*published: CLIP ViT-B/32, all pictures*"]
    assert list(table["KMeans"]) == ["0.500 ± 0.707", ""]
    theirs = mm.tables.published("NMI").set_index(["dataset", "criterion", "method"])["value"]
    assert table["MultiSub"][1] == f"*{theirs['card', 'suits', 'Multi-Sub']}*"


def test_equal_pictures_have_no_information_about_words():
    encoder = mm.load_encoder("mini")
    fruit = mm.load_dataset("tuning-fruit", n=24, seed=0)
    equal = mm.load_dataset("tuning-fruit", n=24, seed=0)
    equal.images = mm.Images.of([fruit.images[0]] * 24)
    seen, unseen = (study_encoders.properties(encoder, d, "color") for d in (fruit, equal))
    assert seen["information"] > 1 > 0.01 > abs(unseen["information"])
