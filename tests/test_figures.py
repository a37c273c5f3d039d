"""Figures drawn from frames like those of the notebooks.

They are legible, no text overlaps another or is cut, and the marks equal the numbers.
"""

import inspect
import io
import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.colors import to_hex
from matplotlib.path import Path
from matplotlib.text import Text
from PIL import Image

from mmclust.data.images import ImageDataset
from mmclust.experiments.statistics import interval, paired_within
from mmclust.methods import METHODS as METHODS_OF_PACKAGE
from mmclust.methods import method_class
from mmclust.results import figures
from mmclust.results.figures.theme import METHOD_STYLES, PARAMETERS, escape_missing_letters
from mmclust.results.tables import PRINTED_NAMES, printed

METHODS = ["KMeans", "CLIP_GPT", "CLIP_label", "MultiMaP", "MultiSub", "MultiDProxy"]
CRITERIA = ["color", "species", "order", "suits", "emotion", "glasses", "pose", "identity"]
FRUITS = [
    "apple", "banana", "grapes", "cherry", "pear", "strawberry", "lemon", "pineapple",
    "watermelon", "carrot", "mushroom", "pumpkin", "corn", "chili", "kiwi", "avocado", "melon",
    "fig", "plum", "lime",
]  # fmt: skip
RANKS = [
    "ace", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "jack", "queen",
    "king",
]  # fmt: skip
COLORS = ["red", "orange", "yellow", "green", "blue", "purple"]


def frame(seeds=5, **columns):
    """Every combination of the columns' values and seeds, with an NMI."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        list(itertools.product(*columns.values(), range(seeds))), columns=[*columns, "seed"]
    )
    levels = {
        key: rng.uniform(0.45, 0.97)
        for key in dict.fromkeys(map(tuple, rows[list(columns)].astype(str).to_numpy()))
    }
    means = np.array([levels[tuple(row)] for row in rows[list(columns)].astype(str).to_numpy()])
    return rows.assign(NMI=np.clip(means + rng.normal(0, 0.02, len(rows)), 0, 1))


def sweep(
    seeds=3,
    criteria=CRITERIA[:7],
    parameters=("epochs", "lr", "alpha", "score", "early_stopping", "n_clusters"),
):
    values = {
        "epochs": [10, 20, 40, 60, 100, 200, 500, 1000],
        "lr": [0.0001, 0.001, 0.005, 0.01, 0.05, 0.1],
        "alpha": [0.0, 0.1, 1.0, 10.0],
        "score": ["mean", "max"],
        "early_stopping": [False, True],
        "n_clusters": [None, 4, 6, 8],
    }
    return pd.concat(
        frame(seeds, parameter=[p], value=values[p], criterion=criteria) for p in parameters
    )


def history(methods=("MultiMaP", "MultiSub", "MultiDProxy")):
    t = np.arange(80)
    rows = []
    terms = {
        "MultiMaP": {"loss": 3, "align": 0.4, "concept": 2, "reference": 900},
        "MultiSub": {"loss": 3},
        "MultiDProxy": {"loss": 5, "L_a": 0.5, "L_u": 0.02, "L_c": 130, "L_align": -0.9},
    }
    events = {
        "MultiSub": {0: "Phase I", 20: "Phase II", 40: "Phase I", 60: "Phase II"},
        "MultiDProxy": {40: "14 to 7 candidates", 60: "7 to 6 candidates"},
    }
    for method in methods:
        for term, size in terms[method].items():
            values = size * (0.3 + 0.7 * np.exp(-t * 2 / (10 + 7 * (ord(term[-1]) % 5))))
            for epoch in t:
                rows.append(
                    {
                        "method": method,
                        "epoch": epoch,
                        "term": term,
                        "value": values[epoch],
                        "event": events.get(method, {}).get(epoch),
                    }
                )
    return pd.DataFrame(rows)


def timed(
    methods=METHODS[3:],
    epochs=(10, 20, 40, 60, 80),
    plain=("KMeans", "CLIP_GPT", "CLIP_label"),
    seeds=3,
):
    learned = frame(seeds, method=list(methods), epochs=list(epochs), criterion=CRITERIA[:4])
    rows = pd.concat(
        [learned, frame(seeds, method=list(plain), criterion=CRITERIA[:4])], ignore_index=True
    )
    grown = rows["epochs"].fillna(60)
    rate = (
        rows["method"].map({"MultiMaP": 0.05, "MultiSub": 0.08, "MultiDProxy": 0.2}).fillna(0.001)
    )
    return rows.assign(
        seconds=0.5 + rate * grown, NMI=rows["NMI"] * (1 - 0.3 * np.exp(-grown / 20))
    )


def costs(value="seconds", methods=METHODS[3:]):
    rows = itertools.product(methods, (("authors' way", 1.0), ("ours", 0.03)))
    size = 12.5 if value == "seconds" else 5200
    return pd.DataFrame(
        [
            {"method": m, "way": way, value: size * share * (1 + i % 2)}
            for i, (m, (way, share)) in enumerate(rows)
        ]
    )


def clustered(classes, clusters, n=300, noise=0.25):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(classes), n)
    turned = rng.permutation(max(clusters, len(classes)))[truth] % clusters
    return np.where(rng.random(n) < noise, rng.integers(0, clusters, n), turned), truth


def pruned(words, halvings=2, every=20):
    updates = [{"epoch": 0, "candidates": list(words)}]
    for k in range(1, halvings + 1):
        updates.append(
            {"epoch": k * every, "candidates": updates[-1]["candidates"][:: 2 if k % 2 else -2]}
        )
    return updates


def pictures(n=60):
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(np.full((32, 32, 3), rng.integers(0, 255, 3), np.uint8)) for _ in range(n)
    ]


def labeled_dataset(criteria, n=60):
    labels = {c: np.arange(n) % 2 for c in criteria}
    classes = {c: ["strawberry", "playing"] for c in criteria}
    return ImageDataset("labeled", "photo", pictures(n), labels, classes)


def spaces(n=60, panels=7, classes=8):
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    names = [
        "ground truth, on v",
        "CLIP_GPT",
        "Multi-MaP",
        "Multi-Sub",
        "Multi-DProxy: text",
        "Multi-DProxy: visual",
        "Multi-DProxy: fused",
    ]
    return {
        name: rng.normal(size=(n, 6)) + 4 * np.eye(classes, 6)[labels] for name in names[:panels]
    }, labels


def tsne(classes, panels=7):
    representations, labels = spaces(panels=panels, classes=len(classes))
    return figures.tsne_panels(representations, labels, classes)[0]


WORDS = [
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "black",
    "gray", "gold", "silver", "turquoise",
]  # fmt: skip
LONG = [
    "a very long name of a cluster of pictures", "red", "strawberries and raspberries", "blue",
    "green", "violet",
]  # fmt: skip
GRID = frame(2, alpha=[0.0, 0.1, 0.3, 0.5, 1.0], beta=[0.1, 0.3, 1.0, 3.0], criterion=CRITERIA[:7])
SPACES = frame(
    2,
    subspace=["prompt", "word", "word-eot", "image"],
    representation=["full", "projected", "normalized"],
    criterion=["color"],
)
ENCODERS = frame(
    criterion=CRITERIA[:3],
    method=METHODS[3:],
    value=["mini after a quarter of its training", "mini after half of it", "mini"],
)
ENCODERS["parameter"] = "encoder"
CHANGES = ["the reference is chosen by a text", "batches of 20", "the final LayerNorm is left out"]
EFFECTS = pd.DataFrame(itertools.product(METHODS[3:5], CHANGES), columns=["method", "change"])
EFFECTS["difference"] = [-0.1, 0.01, 0.02, 0, 0.05, -0.02]
EFFECTS["±"] = 0.015
GAINS = paired_within(
    frame(method=METHODS, criterion=CRITERIA[:4]),
    [(method, "CLIP_GPT") for method in METHODS[3:]], "criterion", by="method",
)  # fmt: skip
SETTINGS = [
    "as in the paper",
    "without L_a",
    "without L_u",
    "without the dynamic candidates",
    "choose_by as released",
    "no fusion",
]
DRAW = {
    "scores": lambda: figures.method_scores(
        frame(method=METHODS, criterion=CRITERIA), "NMI", METHODS
    ),
    "scores of one": lambda: figures.method_scores(
        frame(1, method=METHODS[:1], criterion=CRITERIA[:1])
    ),
    "ablation": lambda: figures.ablation(
        frame(row=SETTINGS, criterion=CRITERIA), baseline=SETTINGS[0]
    ),
    "ablation of one": lambda: figures.ablation(
        frame(1, setting=SETTINGS[:2], criterion=CRITERIA[:1]), by="setting"
    ),
    "heat": lambda: figures.heat_maps(GRID, "alpha", "beta", mark=(0.1, 1.0)),
    "heat of one": lambda: figures.heat_maps(SPACES, "subspace", "representation"),
    "heat of three": lambda: figures.heat_maps(
        GRID[GRID["criterion"].isin(CRITERIA[:3])], "alpha", "beta", mark=(0.3, 0.3)
    ),
    "curves": lambda: figures.curves(
        sweep(),
        mark={"epochs": 60, "lr": 0.1, "alpha": 0.0, "score": "max", "n_clusters": None},
    ),
    "curves of one": lambda: figures.curves(sweep(1, ["color"], ["epochs"]), mark={"epochs": 60}),
    "curves of four": lambda: figures.curves(
        sweep(parameters=["epochs", "lr", "alpha", "early_stopping"]),
        mark={"early_stopping": True},
    ),
    "curves of encoders": lambda: figures.curves(ENCODERS, hue="method"),
    "effects": lambda: figures.differences(EFFECTS, "change", panel="method", hue="method"),
    "gains": lambda: figures.differences(GAINS, "criterion", hue="one"),
    "differences of one": lambda: figures.differences(
        EFFECTS.drop_duplicates("change"), "change", references={"CLIP_GPT": 0.02, "KMeans": -0.3}
    ),
    "convergence": lambda: figures.convergence(history()),
    "convergence of one": lambda: figures.convergence(
        history(["MultiDProxy"]).drop(columns="event")
    ),
    "quality": lambda: figures.quality_time(timed()),
    "quality of one": lambda: figures.quality_time(
        timed(["MultiSub"], plain=["CLIP_GPT"], seeds=1)
    ),
    "quality of equals": lambda: figures.quality_time(
        timed().assign(NMI=lambda rows: 0.8 + rows["NMI"] / 100)
    ),
    "seconds": lambda: figures.costs(costs()),
    "megabytes": lambda: figures.costs(costs("megabytes", METHODS[3:5]), "megabytes", "MB"),
    "candidates": lambda: figures.candidates(pruned(WORDS), 80, COLORS),
    "many candidates": lambda: figures.candidates(
        pruned([f"{w} {k}" for w in WORDS for k in range(3)], 5, 2), 100
    ),
    "confusion 13": lambda: figures.confusion(*clustered(RANKS, 13), RANKS[::-1], RANKS),
    "confusion of more": lambda: figures.confusion(
        *clustered(COLORS[:4], 7),
        ["fire", "sun", "leaf", "sea", "sky", "stone", LONG[0]],
        COLORS[:4],
    ),
    "confusion of one": lambda: figures.confusion(
        [0] * 30, np.arange(30) % 4, ["everything"], COLORS[:4]
    ),
    "cosines": lambda: figures.cosines(
        pictures(4), [f"fruit with a color of {name}" for name in LONG[1:5]], np.eye(4)[::-1] - 0.1
    ),
    "tsne color": lambda: tsne(COLORS, panels=3),
    "tsne species": lambda: tsne(FRUITS[:8]),
    "tsne 20": lambda: tsne(FRUITS, panels=2),
    "gallery": lambda: figures.gallery(
        pictures(), np.arange(60) % 6, COLORS, "the same pictures, keyword: color"
    ),
    "gallery of long names": lambda: figures.gallery(
        pictures(),
        np.arange(60) % 6,
        LONG,
        "a folder of pictures by what they show on a Sunday",
        per_cluster=10,
    ),
    "gallery of many rows": lambda: figures.gallery(
        pictures(), np.arange(60) % 2, LONG[:2], "a folder", per_cluster=24, columns=10
    ),
    "teaser": lambda: figures.teaser(
        pictures(),
        {"color": (np.arange(60) % 6, COLORS), "species": (np.arange(60) % 8, FRUITS[:8])},
    ),
    "gallery with marks": lambda: figures.gallery(
        pictures(), np.arange(60) % 6, LONG, truth=np.arange(60) % 5
    ),
    "mistakes": lambda: figures.mistakes(
        pictures(), {i: "strawberry\nin the cluster\npineapple 0.51" for i in range(20)}
    ),
    "magnified scores": lambda: figures.method_scores(
        frame(method=METHODS, criterion=CRITERIA),
        references={"KMeans": 0.5, "CLIP_GPT": 0.9},
        magnified=0.75,
    ),
    "curves of differences": lambda: figures.curves(
        sweep(parameters=["lr", "alpha"]).assign(NMI=lambda rows: rows["NMI"] - 0.7),
        each_seed=True,
    ),
    "teaser of long names": lambda: figures.teaser(
        pictures(), {"color": (np.arange(60) % 3, LONG)}
    ),
    "samples": lambda: figures.sample_grid(
        {
            "demo-face": labeled_dataset(CRITERIA[4:]),
            "demo-card": labeled_dataset(CRITERIA[2:4]),
            "photos": labeled_dataset([], 4),
        }
    ),
    "scores without seeds": lambda: figures.method_scores(
        frame(1, criterion=CRITERIA[:2], method=["k-means on v", "CLIP_GPT"]).drop(columns="seed")
    ),
}


@pytest.fixture(scope="module", autouse=True)
def theme():
    with plt.rc_context():
        figures.use_theme()
        yield


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn_texts(fig):
    """Every text that is drawn, with its box in inches and its size in points."""
    texts = {}
    draw = Text.draw

    def recorded(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            texts[id(self)] = (
                self.get_text(),
                self.get_window_extent(renderer).transformed(fig.dpi_scale_trans.inverted()),
                self.get_fontsize(),
            )
        return draw(self, renderer, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", recorded)
        fig.draw_without_rendering()
    return list(texts.values())


def overlapping(texts):
    return [
        (a[0], b[0])
        for a, b in itertools.combinations(texts, 2)
        if a[1].padded(-0.01).overlaps(b[1].padded(-0.01))
    ]


def cut(texts, fig):
    """Texts that leave the picture, before `bbox="tight"` includes them."""
    width, height = fig.get_size_inches()
    return [
        text
        for text, box, _ in texts
        if min(box.x0, box.y0) < -0.03 or box.x1 > width + 0.03 or box.y1 > height + 0.03
    ]


def svg(fig):
    file = io.BytesIO()
    fig.savefig(file, format="svg", metadata={"Date": None})
    plt.close(fig)
    return file.getvalue()


@pytest.mark.parametrize("name", DRAW)
def test_is_legible(name):
    fig = DRAW[name]()
    texts = drawn_texts(fig)
    assert texts and not overlapping(texts) and not cut(texts, fig)
    assert min(size for *_, size in texts) >= 9 and fig.get_figwidth() <= 7.5, (
        "9 points are 8 pixels where 7.5 inches are displayed in 480 pixels"
    )
    plt.close(fig)


def test_illegible_texts_are_detected():
    fig, ax = plt.subplots(layout="none")
    ax.set_xticks([0.5, 0.51], ["one label", "another label"])
    ax.text(0.9, 0.5, "a text that leaves the picture at its right border", fontsize=7)
    texts = drawn_texts(fig)
    assert (
        overlapping(texts) == [("one label", "another label")]
        and len(cut(texts, fig)) == 1
        and min(size for *_, size in texts) == 7
    )
    plt.close(fig)


REPEATED = [
    "scores of one", "ablation", "heat of one", "curves of four", "convergence of one",
    "quality of one", "seconds", "candidates", "confusion of one", "tsne 20", "gallery",
    "teaser",
]  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_svg_is_reproducible(name):
    assert svg(DRAW[name]()) == svg(DRAW[name]())


@pytest.fixture
def chinese_font(tmp_path):
    """A font of one letter, as if it was installed."""
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "color"])
    builder.setupCharacterMap({ord("颜"): "color"})
    builder.setupGlyf(dict.fromkeys([".notdef", "color"], TTGlyphPen(None).glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", "color"], (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Noto Sans CJK SC", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "font.ttf")
    fonts = font_manager.fontManager.ttflist[:]
    font_manager.fontManager.addfont(tmp_path / "font.ttf")
    yield
    font_manager.fontManager.ttflist[:] = fonts


def chinese():
    """A figure with Chinese letters at every place for texts."""
    fig = figures.gallery(pictures(), np.arange(60) % 2, ["红 red", "绿 green"], "颜 $1 and $2")
    fig.axes[0].set_xticks([0, 1], ["红", "b"])
    return fig


def test_letters_that_no_font_has_are_escaped():
    with plt.rc_context({"font.family": ["DejaVu Sans"]}):
        fig = chinese()
        assert escape_missing_letters(fig) == "红绿颜"
        texts = "\n".join(text for text, *_ in drawn_texts(fig))
        assert all(text in texts for text in (r"\u7ea2 red", r"\u989c", r"\$1 and \$2"))
        assert texts.count(r"\u7ea2") == 2 and "红" not in texts
        assert escape_missing_letters(fig) == ""
    plt.close(fig)


def test_a_font_of_the_system_is_used_for_letters_that_the_first_lacks(chinese_font):
    with plt.rc_context():
        figures.use_theme()
        fig = chinese()
        assert "颜" not in escape_missing_letters(fig)
        assert any(text.startswith("颜") for text, *_ in drawn_texts(fig))
    plt.close(fig)


def dots(ax):
    """The points of lines with markers that are no legend's."""
    return [
        line
        for line in ax.lines
        if line.get_marker() not in ("", "None", "_") and len(line.get_xdata())
    ]


def test_scores_are_means_with_intervals_over_seeds():
    rows = frame(method=METHODS, criterion=CRITERIA)
    ax = figures.method_scores(rows, order=METHODS).axes[0]
    cells = rows.groupby(["method", "criterion"])["NMI"]
    means, half = cells.mean().unstack(), cells.agg(interval).unstack()
    assert len(dots(ax)) == 6 and len({line.get_marker() for line in dots(ax)}) == 6
    for method, line in zip(METHODS, dots(ax)):
        assert line.get_xdata() == pytest.approx(means.loc[method, CRITERIA].to_numpy())
    spans = sorted(
        np.ptp(line.get_xdata()) / 2
        for line in ax.lines
        if len(line.get_xdata()) == 2 and line not in dots(ax)
    )
    assert spans == pytest.approx(np.sort(half.to_numpy().ravel()))


def test_ablation_draws_means_differences_and_every_criterion():
    rows = frame(row=SETTINGS, criterion=CRITERIA)
    fig = figures.ablation(rows, baseline=SETTINGS[1], references={"CLIP_GPT": 0.8, "KMeans": 0.4})
    ax = fig.axes[0]
    means = rows.groupby("row")["NMI"].mean()[SETTINGS]
    assert [bar.get_width() for bar in ax.containers[0]] == pytest.approx(list(means))
    expected = [
        f"{m:.3f}" if s == SETTINGS[1] else f"{m - means[SETTINGS[1]]:+.3f}"
        for s, m in means.items()
    ]
    assert [text.get_text() for text in ax.texts] == expected
    dashed = {line.get_label(): line for line in ax.lines if line.get_linestyle() == "--"}
    assert list(dashed) == ["CLIP_GPT 0.800", "k-means on v 0.400"]
    for line, name in zip(dashed.values(), ("CLIP_GPT", "k-means on v")):
        assert line.get_xdata()[0] == float(line.get_label()[-5:])
        assert line.get_color() == METHOD_STYLES[name][0]
    for criterion, line in zip(CRITERIA, dots(ax)):
        assert line.get_xdata() == pytest.approx(
            rows[rows["criterion"] == criterion].groupby("row")["NMI"].mean()[SETTINGS].to_numpy()
        )


def test_heat_maps_print_the_means_and_frame_the_chosen_cell():
    fig = figures.heat_maps(
        GRID[GRID["criterion"].isin(CRITERIA[:2])], "alpha", "beta", mark=(0.1, 1.0)
    )
    for ax, (criterion, group) in zip(fig.axes[:2], GRID.groupby("criterion", sort=False)):
        table = group.pivot_table(index="beta", columns="alpha", values="NMI")
        assert ax.get_title() == criterion and [t.get_text() for t in ax.texts] == [
            f"{v:.3f}" for v in table.to_numpy().ravel()
        ]
        (frame_of,) = ax.patches
        assert frame_of.get_xy() == (
            list(table.columns).index(0.1),
            list(table.index).index(1.0),
        ) and ax.get_ylim() == (0, 4), "beta grows upwards"
    assert len({ax.collections[0].get_clim() for ax in fig.axes[:2]}) == 1, "one scale"
    limit = GRID[GRID["beta"] == 3.0].assign(beta=np.inf)
    ax = figures.heat_maps(pd.concat([GRID, limit]), "alpha", "beta", mark=(0.1, 1.0)).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0.1", "0.3", "1", "3", "∞"]
    holes = GRID[(GRID["criterion"] == "color") & ((GRID["alpha"] != 0.3) | (GRID["beta"] != 3.0))]
    assert len(figures.heat_maps(holes, "alpha", "beta").axes[0].texts) == 19


def test_curves_go_through_the_means():
    rows = sweep(criteria=CRITERIA[:2])
    fig = figures.curves(rows, mark={"lr": 0.01, "score": "max"})
    categories = {
        "score": {"mean": 0, "max": 1},
        "early_stopping": {False: 0, True: 1},
        "n_clusters": {None: 0, 4: 1, 6: 2, 8: 3},
    }
    for ax, (name, group) in zip(fig.axes, rows.groupby("parameter", sort=False)):
        for line, criterion in zip(dots(ax), CRITERIA):
            points = group[group["criterion"] == criterion]
            positions = categories.get(name, {v: v for v in points["value"]})
            x = [float(positions[None if pd.isna(v) else v]) for v in points["value"]]
            means = points["NMI"].groupby(x).mean()
            assert line.get_xdata() == pytest.approx(
                means.index.to_numpy()
            ) and line.get_ydata() == pytest.approx(means.to_numpy())
    assert (
        {10, 500, 1000} <= set(fig.axes[0].get_xticks()) < {10, 20, 40, 60, 100, 200, 500, 1000}
    ), "as many as fit"
    lr, score = fig.axes[1], fig.axes[3]
    marks = {
        ax: [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]
        for ax in fig.axes
    }
    assert (
        marks[lr] == [0.01]
        and marks[score] == [1]
        and not marks[fig.axes[0]]
        and lr.texts[0].get_text() == "default 0.01"
    )


def test_bands_are_over_seeds_and_not_over_criteria():
    ax = figures.curves(ENCODERS, hue="method").axes[0]
    for band, (_, group) in zip(ax.collections, ENCODERS.groupby("method", sort=False)):
        per_seed = (
            group.groupby(["value", "seed"], sort=False)["NMI"].mean().groupby("value", sort=False)
        )
        low, high = (
            per_seed.mean() - per_seed.agg(interval),
            per_seed.mean() + per_seed.agg(interval),
        )
        assert {round(y, 9) for _, y in band.get_paths()[0].vertices} == {
            round(y, 9) for y in [*low, *high]
        }


def test_many_lines_have_no_bands():
    five = frame(criterion=CRITERIA[:5], value=[1, 2], parameter=["lr"])
    bands = [
        len(figures.curves(rows).axes[0].collections)
        for rows in (five, five[five["criterion"] != CRITERIA[0]])
    ]
    assert bands == [0, 4]


def test_convergence_has_a_panel_per_term_with_gaps():
    rows = history()
    gap = (rows["method"] == "MultiSub") & rows["epoch"].between(20, 39)
    fig = figures.convergence(rows[~gap])
    panels = {ax.get_title(): ax for ax in fig.axes if ax.get_title()}
    terms = [f"Multi-DProxy\n{term}" for term in ("loss", "L_a", "L_u", "L_c", "L_align")]
    assert list(panels)[-5:] == terms
    for title in terms:
        group = rows[(rows["method"] == "MultiDProxy") & (rows["term"] == title.split("\n")[1])]
        assert panels[title].lines[0].get_ydata() == pytest.approx(group["value"].to_numpy())
    drawn = panels["Multi-Sub\nloss"].lines[0]
    missing = np.isnan(drawn.get_ydata())
    assert list(drawn.get_xdata()[missing]) == list(range(20, 40)), "no line through a gap"
    assert panels["Multi-Sub\nloss"].patches, "Phase II is shaded"
    assert [line.get_xdata()[0] for line in panels[terms[0]].lines[1:]] == [40, 60]
    (legend,) = fig.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["Phase II", "14 to 7 candidates, 7 to 6 candidates"]
    first_without_event = rows[(rows["method"] == "MultiSub") & (rows["epoch"] > 0)]
    (legend,) = figures.convergence(first_without_event).legends
    assert [text.get_text() for text in legend.get_texts()] == ["Phase II"]


def test_quality_against_seconds():
    rows = timed()
    fig = DRAW["quality"]()
    (ax,) = fig.axes
    fig.draw_without_rendering()
    for line, text in itertools.product(dots(ax), ax.texts):
        curve = Path(ax.transData.transform(line.get_xydata()))
        assert not curve.intersects_bbox(text.get_window_extent(), filled=False)
    lines = {line.get_label(): line for line in ax.lines}
    for method in METHODS:
        group = rows[rows["method"] == method].fillna({"epochs": 0})
        means = group.groupby("epochs")[["seconds", "NMI"]].mean()
        assert len(means) == (1 if method in METHODS[:3] else 5), "a dot for one without epochs"
        assert lines[printed(method)].get_xdata() == pytest.approx(means["seconds"].to_numpy())
        assert lines[printed(method)].get_ydata() == pytest.approx(means["NMI"].to_numpy())
    texts = [text.get_text() for text in ax.texts]
    assert len(texts) >= 12 and set(texts) == {"10", "20", "40", "60", "80"}
    assert not figures.quality_time(timed(seeds=1)).axes[0].containers, "one seed: no intervals"


def test_costs_and_their_ratios():
    rows = costs()
    rows.loc[rows["method"] == "MultiSub", "seconds"] *= [2, 1]
    ax = figures.costs(rows).axes[0]
    table = rows.pivot_table(index="method", columns="way", values="seconds").loc[METHODS[3:]]
    assert [list(line.get_xdata()) for line in dots(ax)] == [
        list(table["authors' way"]),
        list(table["ours"]),
    ]
    assert not ax.containers, "no bars on a logarithmic axis"
    texts = [text.get_text() for text in ax.texts]
    assert (
        texts
        == [
            "12.5 s",
            "25 s",
            "12.5 s",
            "0.75 s",
            "0.75 s",
            "0.75 s",
            "17 times",
            "33 times",
            "17 times",
        ]
        and ax.get_xscale() == "log"
    )


def test_candidates_live_until_they_are_dropped():
    updates = [
        {"epoch": 0, "candidates": ["red", "car", "Blue", "tree"]},
        {"epoch": 20, "candidates": ["Blue", "tree"]},
        {"epoch": 50, "candidates": ["Blue"]},
    ]
    ax = figures.candidates(updates, 80, ["red", "blue"]).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Blue ✓", "tree", "red ✓", "car"]
    assert [bar.get_width() for bar in ax.containers[0]] == [80, 50, 20, 20] and list(
        ax.get_xticks()
    ) == [0, 20, 50, 80]
    assert (
        ax.containers[0][0].get_facecolor()
        == ax.containers[0][2].get_facecolor()
        != ax.containers[0][1].get_facecolor()
    )


def test_words_that_are_dropped_together_share_a_bar():
    words = ["red", "blue", *(f"word {i}" for i in range(31))]
    updates = [
        {"epoch": 0, "candidates": words},
        {"epoch": 20, "candidates": words[1:6]},
        {"epoch": 50, "candidates": ["blue"]},
    ]
    ax = figures.candidates(updates, 80, ["red", "blue"]).axes[0]
    texts = [text.get_text() for text in ax.get_yticklabels()]
    assert texts == [
        "blue ✓",
        "word 0, word 1 and 2 others",
        "red ✓",
        "word 4, word 5 and 25 others",
    ]
    assert [bar.get_width() for bar in ax.containers[0]] == [80, 50, 20, 20]


@pytest.mark.parametrize("clusters", [2, 4, 6])
def test_confusion_matches_clusters_to_classes(clusters):
    labels, truth = clustered(COLORS[:4], clusters, noise=0.6)
    labels = np.where(labels == 1, 9, labels)  # 1 and others have no members
    names = [f"cluster {c}" for c in range(10)]
    table = figures.confusion_table(labels, truth, names, COLORS[:4])
    assert table.to_numpy().sum() == 300 and len(table) == len(set(labels))
    for row in table.index:
        c = int(row.split()[1])
        assert row == f"cluster {c} ({(labels == c).sum()})"
        assert all(
            table.loc[row, name] == ((labels == c) & (truth == COLORS.index(name))).sum()
            for name in table
        )
    values = table.to_numpy() if len(table) <= 4 else table.to_numpy().T
    best = max(
        sum(values[i, j] for i, j in enumerate(p))
        for p in itertools.permutations(range(values.shape[1]), len(values))
    )
    assert np.trace(table.to_numpy()) == best
    ax = figures.confusion(labels, truth, names, COLORS[:4]).axes[0]
    assert [t.get_text() for t in ax.texts] == [
        str(v) if v else "" for v in table.to_numpy().ravel()
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table.index) and [
        t.get_text() for t in ax.get_xticklabels()
    ] == list(table.columns)


def test_cosines_have_the_largest_of_each_picture_framed():
    similarity = np.array([[0.1, 0.3, -0.001], [0.5, -0.4, 0.4]])
    fig = figures.cosines(pictures(2), ["red", "green", "blue"], similarity)
    heat, *shown = fig.axes
    assert [t.get_text() for t in heat.texts] == ["0.10", "0.30", "0.00", "0.50", "-0.40", "0.40"]
    assert [frame.get_xy() for frame in heat.patches] == [(1, 0), (0, 1)]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["red", "green", "blue"]
    fig.draw_without_rendering()
    for ax, image, y in zip(shown, pictures(2), (0.5, 1.5)):
        assert np.array_equal(ax.images[0].get_array(), np.asarray(image))
        top, bottom = heat.transData.transform([(0, y - 0.5), (0, y + 0.5)])[:, 1]
        box = ax.get_window_extent()
        assert bottom - 5 < box.y0 < box.y1 < top + 5, "a picture is next to its row"


def test_tsne_returns_what_it_draws():
    representations, labels = spaces(panels=2, classes=20)
    fig, points = figures.tsne_panels(representations, labels, FRUITS)
    for ax, (title, panel) in zip(fig.axes, points.groupby("panel", sort=False)):
        assert ax.get_title() == title and len(panel) == 60
        for drawn, name in zip(ax.collections, FRUITS):
            assert np.allclose(drawn.get_offsets(), panel.loc[panel["class"] == name, ["x", "y"]])
    looks = {
        (tuple(d.get_facecolor()[0]), d.get_paths()[0].vertices.tobytes())
        for d in fig.axes[0].collections
    }
    assert len(looks) == 20, "color and marker together tell twenty classes apart"


def test_pictures_are_in_the_row_of_their_cluster():
    images, labels = pictures(), np.arange(60) % 3
    fig = figures.gallery(
        images, np.where(labels == 1, 2, labels), ["a", "empty", "b"], per_cluster=4
    )
    drawn = [np.asarray(ax.images[0].get_array())[0, 0] for ax in fig.axes]
    expected = [np.asarray(images[i])[0, 0] for i in (0, 18, 36, 57, 1, 20, 40, 59)]
    assert np.array_equal(drawn, expected)
    assert [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()] == [
        "a\n20 pictures",
        "b\n40 pictures",
    ]


def test_a_figure_keeps_no_large_pictures():
    """A folder's pictures may have 36 MB each, and a gallery has hundreds."""
    fig = figures.gallery([Image.new("RGB", (2400, 1200), "red")], [0], ["a"], per_cluster=1)
    assert fig.axes[0].images[0].get_array().shape == (256, 512, 3)


def test_a_cluster_may_have_several_rows_of_pictures():
    labels = np.array([0] * 25 + [1] * 3)
    fig = figures.gallery(pictures(28), labels, ["a", "b"], per_cluster=12, columns=5)
    rows = np.reshape([len(ax.images) for ax in fig.axes], (5, 5))
    assert rows.sum(1).tolist() == [5, 5, 2, 0, 3]  # a distance between the clusters
    titles = [ax.get_ylabel() for ax in fig.axes[::5]]
    assert titles == ["a\n25 pictures", "", "", "", "b\n3 pictures"]


def test_frames_of_a_gallery_have_the_colors_that_its_names_say():
    labels = np.array([0, 1, 1, 2])
    fig = figures.gallery(pictures(4), labels, ["red", "green", "green 2"], per_cluster=2)
    frames = [ax.spines["left"].get_edgecolor() for ax in fig.axes if ax.images]
    red, green, _, second = frames
    assert second == green != red
    titles = [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()]
    assert titles == ["red\n1 picture", "green\n2 pictures", "green 2\n1 picture"]
    fig = figures.gallery(pictures(4), labels, ["red", "hot", "green"], per_cluster=2)
    assert len({ax.spines["left"].get_edgecolor() for ax in fig.axes if ax.images}) == 1
    ax = fig.axes[0]  # its frame is around the picture
    assert ax.get_xlim()[0] < ax.images[0].get_extent()[0]


def outlines(fig):
    """Whether each picture has an outline around its frame."""
    widths = [(ax.patch.get_linewidth(), ax.spines["left"].get_linewidth()) for ax in fig.axes]
    return [outline > frame for outline, frame in widths]


def test_a_frame_that_is_almost_white_has_an_outline():
    fig = figures.gallery(pictures(3), np.arange(3), ["white", "yellow", "pink"], per_cluster=1)
    assert outlines(fig) == [True, False, False]
    frame, outline = (fig.axes[0].spines["left"].get_edgecolor(), fig.axes[0].patch.get_edgecolor())
    assert min(frame[:3]) > 0.9 > 0.7 > max(outline[:3])
    fig = figures.gallery(pictures(2), np.arange(2), ["a", "b"], per_cluster=1)
    assert outlines(fig) == [False, False]


def test_wrong_pictures_are_marked_and_counted():
    labels, truth = np.array([0] * 5 + [1] * 4), np.array([2, 2, 0, 2, 2, 1, 1, 2, 1])
    wrong = figures.misplaced(labels, truth)
    assert list(np.flatnonzero(wrong)) == [2, 7]
    fig = figures.gallery(pictures(9), labels, ["a", "b"], per_cluster=5, truth=truth)
    assert [i for i, ax in enumerate(fig.axes) if ax.lines] == [2, 5 + 2]
    titles = [ax.get_ylabel() for ax in fig.axes if ax.get_ylabel()]
    assert titles == ["a\n4 of 5", "b\n3 of 4"]


def test_rows_of_mistakes_are_equally_long():
    fig = figures.mistakes(pictures(), {i: str(i) for i in range(6)})
    assert len(fig.axes) == 6 and fig.axes[0].get_gridspec().get_geometry() == (2, 3)


def test_the_teaser_sorts_the_pictures_that_it_shows():
    images = pictures()
    labels = {"color": np.arange(60) ** 2 % 7 % 6, "species": np.arange(60) % 8}
    clusterings = {"color": (labels["color"], COLORS), "species": (labels["species"], FRUITS[:8])}
    truth = labels | {"color": np.where(np.arange(60) == 3, 5, labels["color"])}
    fig = figures.teaser(images, clusterings, truth, n=24)
    panels = fig.subfigs[::2]  # an empty one between two panels
    first = sorted(np.asarray(image)[0, 0].tobytes() for image in images[:24])
    for panel in panels:
        axes = [ax for ax in panel.axes if ax.images]
        assert sorted(ax.images[0].get_array()[0, 0].tobytes() for ax in axes) == first
    marked = [[ax for ax in panel.axes if ax.lines] for panel in panels]
    assert [len(axes) for axes in marked] == [0, 1, 0]
    assert np.array_equal(marked[1][0].images[0].get_array()[0, 0], np.asarray(images[3])[0, 0])
    fig.draw_without_rendering()
    for left, panel in itertools.pairwise(panels):
        for ax in (ax for ax in panel.axes if ax.get_ylabel()):
            name = ax.yaxis.label.get_window_extent()
            before = max(other.get_window_extent().x1 for other in left.axes if other.images)
            after = ax.get_window_extent().x0 - name.x1
            assert name.x0 - before > 1.5 * after, "a name is nearer to the pictures that it names"
    rows = {ax.get_ylabel() for ax in panels[2].axes} - {""}
    assert rows == set(FRUITS[:8]), "every cluster that has one of these pictures"


def test_differences_are_filled_where_they_are_certain():
    fig = DRAW["effects"]()
    assert [ax.get_title(loc="left") for ax in fig.axes if ax.get_title(loc="left")] == [
        "Multi-MaP",
        "Multi-Sub",
    ]
    (legend,) = DRAW["differences of one"]().legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["CLIP_GPT +0.020", "k-means on v -0.300"]
    for ax, method in zip(fig.axes[::2], METHODS[3:5]):
        group = EFFECTS[EFFECTS["method"] == method]
        certain = group["difference"].abs() > group["±"]
        drawn = {
            float(x): line.get_markerfacecolor() != "white"
            for line in dots(ax)
            for x in line.get_xdata()
        }
        assert drawn == dict(zip(group["difference"], certain))
    adjusted = GAINS.assign(**{"adjusted p": np.where(GAINS.index == 2, 0.04, 0.06)})
    ax = figures.differences(adjusted, "criterion", hue="one").axes[0]
    filled = [
        x for line in dots(ax) if line.get_markerfacecolor() != "white" for x in line.get_xdata()
    ]
    assert filled == [GAINS.loc[2, "difference"]]


def test_intervals_end_at_one():
    rows = frame(3, method=METHODS[:2], criterion=CRITERIA[:1])
    rows["NMI"] = np.where(rows["method"] == "CLIP_GPT", [0.9, 1.0, 1.0] * 2, 0.5)
    ax = figures.method_scores(rows).axes[0]
    assert max(np.max(line.get_xdata()) for line in ax.lines if len(line.get_xdata())) == 1


def looks_of(fig):
    """Text, color and marker of every entry of the figure's legends."""
    legends = [*fig.legends, *(ax.get_legend() for ax in fig.axes if ax.get_legend())]
    for legend in legends:
        for handle, text in zip(legend.legend_handles, legend.get_texts()):
            if hasattr(handle, "get_marker"):
                yield text.get_text(), to_hex(handle.get_color()), handle.get_marker()


@pytest.mark.parametrize("name", DRAW)
def test_a_method_has_one_name_color_and_marker_and_a_parameter_one_name(name):
    fig = DRAW[name]()
    names = {text for text, *_ in drawn_texts(fig)}
    for text, color, marker in looks_of(fig):
        method = re.sub(r" [+-]?\d\.\d+$", "", text)
        if method in METHOD_STYLES and marker not in (None, "None", ""):
            assert (color, marker) == METHOD_STYLES[method], text
        elif method in METHOD_STYLES:  # a reference line
            assert color == METHOD_STYLES[method][0], text
        else:
            assert (color, marker) not in METHOD_STYLES.values(), f"{text} looks like a method"
    code = {*PRINTED_NAMES, *PARAMETERS}
    assert not {word for text in names for word in re.split(r"[\s:,=]+", text)} & code
    plt.close(fig)


def test_the_names_of_methods_and_parameters_are_those_of_the_code():
    assert set(PRINTED_NAMES) <= {*METHODS_OF_PACKAGE} and set(PRINTED_NAMES.values()) <= {
        *METHOD_STYLES
    }
    signatures = [inspect.signature(method_class(name)).parameters for name in METHODS_OF_PACKAGE]
    assert set(PARAMETERS) <= {parameter for names in signatures for parameter in names}
