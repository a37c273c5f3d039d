"""The sentences that notebooks compute: the numbers in them follow the rows.

Each test runs the cell of a notebook that has the tag "finding", and the one before it if that has
the tag "numbers", with other rows than those of a run. It reads the sentence from the note that the
gallery reads.
"""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import mmclust as mm
from mmclust.pipeline.gallery import read_notes

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
METHODS = ["KMeans", "CLIP_GPT", "CRL", "MultiMaP", "MultiSub", "MultiDProxy"]


def finding_cells(path):
    sources = [""]
    numbers = ""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        tags = cell["metadata"].get("tags", [])
        source = "".join(cell["source"]) + "\n"
        if "finding" in tags:
            sources.append(numbers + source)
        numbers = source if "numbers" in tags else ""
    return sources[1:]


def test_every_notebook_with_figures_has_a_finding():
    without = [path.stem for path in NOTEBOOKS if not finding_cells(path)]
    assert without == ["16_explorer"]


@pytest.fixture
def finding(tmp_path):
    """Runs the n-th finding cell of a notebook in a namespace; returns the sentences."""

    def run(prefix, written, cell=0, **namespace):
        (path,) = (path for path in NOTEBOOKS if path.stem.startswith(prefix))
        output = mm.NotebookOutput(path.stem, tmp_path)
        for name in written:
            output.table(pd.DataFrame({"x": [1]}), name)
        names = {"mm": mm, "pd": pd, "output": output, "shared": ""} | namespace
        exec(finding_cells(path)[cell], names)
        return " ".join(note["finding"] for note in read_notes(tmp_path, path.stem))

    return run


def rows_of(levels, criteria=("color", "species"), seeds=5, by="method"):
    """A row per setting, criterion and seed, at the level of the setting; seeds differ a little."""
    rows = itertools.product(levels, criteria, range(seeds))
    frame = pd.DataFrame(rows, columns=[by, "criterion", "seed"])
    wobble = np.random.default_rng(0).normal(0, 0.002, len(frame))
    levels_of = [
        level[criterion] if isinstance(level := levels[name], dict) else level
        for name, criterion in zip(frame[by], frame["criterion"])
    ]
    return frame.assign(NMI=np.array(levels_of) + wobble)


def at(level, **levels):
    return dict.fromkeys(METHODS, level) | levels


def test_quickstart(finding):
    for gpt in (0.94, 0.51):
        scores = pd.DataFrame(
            [
                ("color", "Multi-Sub", 0.92),
                ("color", "CLIP_GPT", gpt),
                ("color", "k-means on v", 0.4),
            ],
            columns=["criterion", "method", "NMI"],
        )
        text = finding("00", ["idea"], scores=scores, models={"color": None})
        assert f"by {gpt}" in text and "of 0.92" in text and "by 0.40" in text


def test_datasets(finding):
    pairs = pd.DataFrame({"criteria": ["color and species", "shape and size"], "AMI": [0.01, 0.4]})
    text = finding("01", ["samples"], independence=pairs)
    assert text.startswith("1 of 2 pairs") and text.endswith("shape and size.")
    text = finding("01", ["samples"], independence=pairs.assign(AMI=0))
    assert text.startswith("2 of 2 pairs") and text.endswith("none.") and "can't serve" in text
    text = finding("01", ["samples"], independence=pairs.assign(AMI=0.5))
    assert text.startswith("0 of 2 pairs") and "one clustering may serve both" in text


def test_main_comparison(finding):
    equal = finding("02", ["nmi"], judged_main=rows_of(at(0.9, KMeans=0.4)))
    assert "between 0.90 and 0.90, without one 0.40" in equal and "0 show a certain gain" in equal
    better = finding("02", ["nmi"], judged_main=rows_of(at(0.8, KMeans=0.3, MultiSub=0.9)))
    assert "between 0.80 and 0.90, without one 0.30" in better
    assert "Of 12 comparisons" in better and "4 show a certain gain and 0 a certain loss" in better
    other = rows_of(at(0.8, KMeans=0.3, MultiSub=0.7)).assign(dataset="cars")
    rows = pd.concat([rows_of(at(0.8, KMeans=0.3, MultiSub=0.9)).assign(dataset="fruit"), other])
    two = finding("02", ["nmi"], judged_main=rows)
    assert "NMI over 4 criteria" in two and "Of 24 comparisons" in two
    assert "4 show a certain gain and 4 a certain loss" in two, "their mean shows none"


def test_zero_shot(finding):
    learned = METHODS[3:]
    for level, certain in ((0.8, 0), (0.9, 2)):
        rows = rows_of(at(0.8, MultiSub=level))
        pairs = [(method, "CLIP_GPT") for method in learned]
        gains = mm.paired_within(rows, pairs, "criterion", by="method")
        text = finding("03", ["gains"], gains=gains, cfg=SimpleNamespace(learned=learned))
        assert f"; {certain} of 6 differences are certain" in text
        assert ("Multi-Sub by color +0.1" in text) == (certain > 0)


def test_text_encoders(finding):
    encoders = {"half": "after half", "mini": "mini"}
    gains = pd.DataFrame(
        [("color", "after half", 0.3), ("species", "after half", 0.01), ("color", "mini", 0.1),
         ("species", "mini", 0.02)],
        columns=["criterion", "encoder", "difference"],
    )  # fmt: skip
    cfg = SimpleNamespace(learned="MultiSub", encoders=encoders)
    text = finding("04", ["gain"], gains=gains, cfg=cfg)
    assert "one criterion, color" in text and "+0.155 (+0.010) with after half" in text
    assert text.startswith("Most of Multi-Sub's gain")
    swapped = gains.assign(
        criterion=gains["criterion"].map({"color": "species", "species": "pose"})
    )
    assert "one criterion, species" in finding("04", ["gain"], gains=swapped, cfg=cfg)
    shared = gains.assign(difference=[0.1, 0.1, 0.1, 0.1])
    text = finding("04", ["gain"], gains=shared, cfg=cfg)
    assert text.startswith("No criterion has most of Multi-Sub's gain over CLIP_GPT; the first is")
    text = finding("04", ["gain"], gains=gains.assign(difference=[0.1, -0.3, 0.1, 0]), cfg=cfg)
    assert text.startswith("Multi-Sub has no mean gain over CLIP_GPT; its best criterion is color")


@pytest.mark.parametrize("image, text, more", [(0.6, 0.01, "more"), (0.9, 0.2, "less")])
def test_subspaces(finding, image, text, more):
    rows = itertools.product({"prompt": 0.95, "image": image}.items(), ("token", "text"))
    per_seed = pd.DataFrame(
        [(c, s, 0, nmi - text * (s == "text")) for (c, nmi), s in rows],
        columns=["clustered", "subspace", "seed", "NMI"],
    )
    references = {"CLIP_GPT": 0.9, "KMeans": 0.5}
    sentence = finding("05", ["dots"], per_seed=per_seed, references=references)
    assert sentence.startswith(f"What is clustered matters {more} than the subspace")
    assert f"from {image:.2f} (image) to 0.95 (prompt)" in sentence
    assert f"of the prompt by {text:.3f}" in sentence


@pytest.mark.parametrize(
    "reference, concept, gpt, beginning, near",
    [
        (0.4, 0.9, 0.88, "The reference word matters more: NMI changes by -0.5", True),
        (0.9, 0.3, 0.4, "The concept matters more: NMI changes by -0.6", False),
        (0.95, 0.92, 0.9, "Neither constraint is needed: NMI changes by +0.0", True),
    ],
)
def test_constraints(finding, reference, concept, gpt, beginning, near):
    levels = {"both constraints": 0.9, "w/o reference": reference, "w/o concept": concept}
    rows = rows_of(levels | {"w/o both": 0.4}, by="row")
    zero_shot = rows_of({"CLIP_GPT": {"color": gpt, "species": 0.9}, "KMeans": 0.45})
    text = finding(
        "06", ["bars"], rows=rows, zero_shot=zero_shot, profile_weights=(0.1, 1.0),
        references=zero_shot.groupby("method")["NMI"].mean(),
    )  # fmt: skip
    assert text.startswith(beginning) and "β = 1" in text
    assert (" without the reference word, by" in text) == (reference < concept)
    assert (" stays near" in text) == near and ("does not stay near" in text) != near
    assert f"of a criterion is {max(0.9 - gpt, 0.0):.2f}" in text


def test_parts(finding):
    for fusion, seen in ((0.9, "not seen"), (0.6, "seen")):
        rows = rows_of({"full": 0.9, "visual only": 0.4, "w/o gated fusion": fusion}, by="row")
        pairs = [("visual only", "full"), ("w/o gated fusion", "full")]
        drops = mm.paired_within(rows.assign(over="all"), pairs, within="over")
        text = finding("07", ["drops"], drops=drops.sort_values("difference", ignore_index=True))
        assert f"w/o gated fusion, is {seen} here" in text and "visual only, -0.50" in text
    drops.loc[drops["one"] == "w/o gated fusion", "difference"] = 0.7
    assert "is w/o gated fusion, +0.70" in finding("07", ["drops"], drops=drops)
    model = SimpleNamespace(candidates_=["pear", "car", "fig"])
    context = {"words": ["pear", "fig", "car", "sea"], "classes": ["pear", "lime", "fig"]}
    text = finding("07", ["candidates"], cell=1, model=model, **context)
    assert text == "Of 4 words 3 remain: 2 of the 2 true names, and 1 others."


def test_spaces(finding):
    multisub = SimpleNamespace(name_clusters=lambda: ["red", "sea"])
    data = mm.load_dataset("demo-fruit", n=5)
    data.classes["color"] = ["red", "blue"]
    nmi = {"image features v (no keyword)": 0.4, "CLIP_GPT": 0.8, "Multi-Sub": 0.9}
    for n_wrong in (0, 2):
        text = finding(
            "08", ["color"],
            scores={"color": nmi},
            models={"color": (None, None, multisub)},
            wrong={"color": np.arange(5) < n_wrong},
            data=data,
        )  # fmt: skip
        assert "reaches 0.40" in text and "0.90 in the space of Multi-Sub" in text
        assert f"{n_wrong} of 5 pictures" in text and "1 of 2 cluster names" in text


def test_hyperparameters(finding):
    frame = pd.DataFrame(
        [
            ("MultiSub", "lam", "color", "0.1", -0.01),
            ("MultiDProxy", "layers", "color", "4", -0.05),
        ],
        columns=["method", "parameter", "series", "value", "difference in NMI"],
    )
    text = finding("09", ["MultiDProxy"], frame=frame)
    assert "L (layers) of Multi-DProxy: 4 changes the NMI of color by -0.050" in text
    assert text.endswith("at most 0.010.")
    frame["difference in NMI"] *= [10, 1]
    assert "λ of Multi-Sub: 0.1" in finding("09", ["MultiSub"], frame=frame)


def test_efficiency(finding):
    series = pd.Series([5.0, 50.0])
    text = finding(
        "10", ["epoch_mini"], times=series, memory=3 * series, ratios=lambda frames, _: frames,
        cfg=SimpleNamespace(architectures=["mini"]),
    )  # fmt: skip
    assert "5 to 50 times less time" in text and "15 to 150 times less memory" in text
    rows = [("MultiSub", 10, 0.5, 1.0), ("MultiSub", 20, 0.895, 2.0), ("MultiSub", 40, 0.9, 4.0)]
    rows += [("CLIP_GPT", np.nan, 0.8, 0.08)]
    quality = pd.DataFrame(rows, columns=["method", "epochs", "NMI", "seconds"])
    text = finding("10", ["quality"], cell=1, quality=quality)
    assert "0.800 after 0.08 s" in text and "Multi-Sub 0.895 after 2.00 s" in text
    later = quality.assign(NMI=[0.5, 0.7, 0.9, 0.8])
    assert "after 4.00 s" in finding("10", ["quality"], cell=1, quality=later)


@pytest.mark.parametrize("score, crl, nmi", [(0.02, 0.1, -0.001), (0.3, 0.7, 0.8)])
def test_a_failure(finding, score, crl, nmi):
    names = ["score of the names", "agreement with another seed", "agreement with CRL"]
    signs = pd.DataFrame(
        itertools.product(["shape", "color"], [*names, "NMI, which needs labels"]),
        columns=["criterion", "method"],
    ).assign(value=[score, 0.9, crl, nmi, 0.4, 1.0, 0.8, 0.95])
    context = {"names": ["round", "square"], "cfg": SimpleNamespace(keyword="shape")}
    text = finding("11", ["signs"], signs=signs, **context)
    warns, _, silent = text.partition("What does not: ")
    assert "round and square" in text and "for color at least 0.95" in text
    assert f"Multi-Sub {'fails' if nmi < 0.1 else 'does not fail'}: NMI {abs(nmi):.2f}" in text
    assert f"score of the names ({score:.2f}; the others at least 0.40)" in text
    assert ("score of the names" in warns) == (score < 0.2)
    assert ("agreement with CRL" in warns) == (crl < 0.4)
    assert "agreement with another seed (0.90" in silent
    assert ("What warns without labels: nothing" in text) == (nmi > 0.1)


def test_paper_and_code(finding):
    for released, less in ((-0.01, "less"), (0.2, "less"), (-0.4, "no less")):
        effects = pd.DataFrame(
            [("MultiMaP", "targets", "text targets", -0.5),
             ("MultiMaP", "reduction", "a mean", -0.3),
             ("MultiMaP", "variant", "everything", released), ("MultiSub", "intra", "plain", 0.0)],
            columns=["method", "parameter", "change", "difference"],
        ).assign(**{"±": 0.05, "adjusted p": [0.01, 0.02, 0.5, 0.6]})  # fmt: skip
        text = finding("12", ["effects"], effects=effects, cfg=SimpleNamespace(seeds=3))
        assert "Multi-MaP by -0.50 (text targets) and -0.30 (a mean)" in text
        assert f"changes it by {released:+.3f}, {less} than each of them" in text
        counts = (
            "Of 3 differences changed alone, 2 have an interval without zero, 2 after correction"
        )
        assert f"{counts} for 4 comparisons" in text


@pytest.mark.parametrize(
    "prefix, label, column",
    [("13", "clustered", "species"), ("14", "what is clustered", "NMI"), ("15", "row", "NMI")],
)
def test_lessons(finding, prefix, label, column):
    scores = pd.DataFrame({label: ["free", "held", "word"], column: [0.3, 0.9, 0.5]})
    cfg = SimpleNamespace(keyword="species")

    def sentence(*values):
        return finding(prefix, ["switches"], scores=scores.assign(**{column: values}), cfg=cfg)

    start = "To cluster by species, the best NMI is "
    assert sentence(0.3, 0.9, 0.5) == f"{start}0.90 (held), the worst 0.30 (free)."
    assert sentence(1, 0, 0.5) == f"{start}1.00 (free), the worst 0.00 (held)."
    tie = "(held; word: within 0.01 of each other)"
    assert sentence(0.3, 0.939, 0.94) == f"{start}0.94 {tie}, the worst 0.30 (free)."
    assert sentence(0.94, 0.305, 0.3) == f"{start}0.94 (free), the worst 0.30 {tie}."
    assert sentence(0.3, 0.92, 0.94) == f"{start}0.94 (word), the worst 0.30 (free)."


def test_when_asking_fails(finding):
    learned = METHODS[3:]
    for level in (0.8, 0.6):
        rows = rows_of(at(0.7, MultiSub=level)).rename(columns={"criterion": "condition"})
        pairs = [(method, "CLIP_GPT") for method in learned]
        differences = mm.paired_within(rows, pairs, "condition", by="method")
        means = rows.groupby(["condition", "method"])["NMI"].mean().unstack()
        cfg = SimpleNamespace(learned=learned)
        text = finding("17", ["gains"], differences=differences, means=means, cfg=cfg)
        if level > 0.7:
            assert "the nearest word is not enough: Multi-Sub" in text
            assert "Multi-Sub is certainly above CLIP_GPT in 2 of 2 conditions" in text
            assert "its lowest mean NMI is 0.80, that of CLIP_GPT 0.70" in text
        else:
            assert "the nearest word is enough" in text
            assert "above CLIP_GPT in 0 of 2 conditions, and certainly below it in 0" in text


def test_nothing_is_certain_if_seeds_share_pictures(finding):
    """A folder of 300 pictures, of which each of five seeds draws 200; then each makes new ones."""
    learned = METHODS[3:]
    cfg = SimpleNamespace(learned=learned, seeds=5)
    pairs = [(method, "CLIP_GPT") for method in learned]
    texts = []
    for pool in (300, np.nan):
        rows = rows_of(at(0.7, MultiSub=0.8, MultiMaP=0.6, MultiDProxy=0.6))
        rows = rows.assign(dataset="photos/", n=200, pool=pool)
        by_criterion = mm.paired_within(rows, pairs, "criterion", by="method")
        means = rows.groupby(["criterion", "method"])["NMI"].mean().unstack()
        context = {"cfg": cfg, "shared": mm.tables.shared_note(rows)}
        parts = rows_of({"full": 0.9, "visual only": 0.4, "w/o gated fusion": 0.6}, by="row")
        parts = parts.assign(dataset="photos/", n=200, pool=pool, over="all")
        without = [("visual only", "full"), ("w/o gated fusion", "full")]
        drops = mm.paired_within(parts, without, within="over")
        effects = by_criterion.assign(method=by_criterion["one"], change="a", parameter="b")
        effects.loc[effects.index[-3:], "parameter"] = "variant"
        effects.loc[effects.index[-3:], "method"] = learned
        texts.append([
            finding("02", ["nmi"], judged_main=rows, **context),
            finding("03", ["gains"], gains=by_criterion, **context),
            finding("07", ["drops"], drops=drops, **context),
            finding("12", ["effects"], effects=effects, **context),
            finding("17", ["gains"], differences=by_criterion, means=means, **context),
        ])  # fmt: skip
    note = (
        " The seeds share pictures, so intervals hold for these pictures, not for others of their "
        "kind, and no difference is called certain."
    )
    for of_folder, of_world in zip(*texts):
        text, _, _ = of_folder.partition(note)
        assert of_folder == text + note and note not in of_world
        assert "certain" not in text.lower() and "correction" not in text
        assert "certain" in of_world.lower() or "correction" in of_world
    assert "show a gain and" in texts[0][0] and "4 show a certain gain" in texts[1][0]
    assert "w/o gated fusion, is not tested here: -0.300" in texts[0][2]
    assert "Multi-Sub is above CLIP_GPT in 2 of 2 conditions, and below it in 0" in texts[0][4]


def test_a_finding_is_of_a_figure_that_exists(tmp_path):
    output = mm.NotebookOutput("a", tmp_path)
    with pytest.raises(ValueError, match="a has no figure or table 'nmi': write it first"):
        output.finding("A sentence.", "nmi")
