"""Tables: what is bold, what was published, and the files that a table leaves behind."""

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from mmclust.results import tables
from mmclust.results.output import NotebookOutput
from mmclust.results.tables import (
    best,
    compare_with_published,
    published,
    published_table,
    summarise,
    winners,
)

A, B, C = [0.90, 0.95, 0.91, 0.97, 0.92], [0.88, 0.90, 0.92, 0.93, 0.90], [0.3, 0.2, 0.4, 0.1, 0.3]


def tidy(scores, dataset="demo-fruit", encoder="mini", metric="NMI"):
    """Rows from method -> criterion -> values over seeds."""
    return pd.DataFrame(
        [
            {
                "dataset": dataset,
                "criterion": criterion,
                "encoder": encoder,
                "method": method,
                "seed": seed,
                metric: value,
            }
            for method, by_criterion in scores.items()
            for criterion, values in by_criterion.items()
            for seed, value in enumerate(values)
        ]
    )


def bold(rows, **options):
    """The names that are bold, by column."""
    found, names = best(rows, **options), summarise(rows)["method"]
    return {column: names[found[column]].tolist() for column in found if found[column].any()}


@st.composite
def grids(draw):
    methods, criteria, seeds = (
        draw(st.integers(2, 4)),
        draw(st.integers(1, 3)),
        draw(st.integers(2, 5)),
    )
    values = draw(
        st.lists(
            st.integers(0, 20),
            min_size=methods * criteria * seeds,
            max_size=methods * criteria * seeds,
        )
    )
    values = np.reshape(values, (methods, criteria, seeds)) / 20
    return tidy({f"m{i}": {f"c{j}": values[i, j] for j in range(criteria)} for i in range(methods)})


def test_bold_is_what_a_paired_t_test_says():
    rows = tidy({"A": {"color": A}, "B": {"color": B}, "C": {"color": C}})
    p = ttest_rel(A, B).pvalue  # two-sided; C is far below
    assert 0.01 < p < 0.2 and ttest_rel(A, C).pvalue < p
    assert bold(rows, level=1 - p * 1.001) == {"color": ["A"], "mean": ["A"]}
    assert bold(rows, level=1 - p * 0.999) == {}
    assert bold(rows, level=1 - p * 0.999, among=["A", "C"]) == {"color": ["A"], "mean": ["A"]}
    assert bold(rows, level=1 - p * 1.001, among=["B", "C"]) == {"color": ["B"], "mean": ["B"]}
    with pytest.raises(ValueError, match="no row is named 'D'"):
        best(rows, among=["A", "D"])


def test_the_mean_is_compared_by_means_per_seed():
    rows = tidy(
        {"A": {"color": A, "species": C}, "B": {"color": B, "species": [c + 0.2 for c in C]}}
    )
    p = ttest_rel(
        [(a + c) / 2 for a, c in zip(A, C)], [(b + c + 0.2) / 2 for b, c in zip(B, C)]
    ).pvalue
    assert bold(rows, level=1 - p * 1.001)["mean"] == ["B"] and "mean" not in bold(
        rows, level=1 - p * 0.999
    )
    assert (
        winners(rows) == {name: names[0] for name, names in bold(rows).items()}
        and winners(rows)["species"] == "B"
    )
    assert bold(rows)["species"] == ["B"]  # a constant difference, which has no t
    lacking = rows[(rows["method"] == "A") | (rows["criterion"] == "species")]
    assert bold(lacking) == {
        "species": ["B"]
    }  # alone in color, and without a mean over the same criteria
    assert bold(tidy({"A": {"color": A}, "B": {"species": B}})) == {}


def test_nothing_is_bold_without_pairs_of_seeds():
    rows = tidy({"A": {"color": [0.9] * 3}, "B": {"color": [0.1] * 3}})
    assert bold(rows) == {"color": ["A"], "mean": ["A"]}
    assert bold(rows[rows["seed"] == 0]) == {}
    assert bold(rows.drop(index=0)) == {}
    assert bold(rows.assign(seed=range(6))) == {}
    assert bold(rows.assign(NMI=0.5)) == {}
    with pytest.raises(ValueError, match="duplicate"):
        best(pd.concat([rows, rows]))


@settings(max_examples=15)
@given(grids(), st.randoms(use_true_random=False), st.data())
def test_properties_of_bold(rows, random, data):
    found, text = best(rows), summarise(rows)
    assert found.shape == text.shape and list(found) == list(text) and not found["method"].any()
    assert found.sum().max() <= 1
    shuffled = rows.iloc[random.sample(range(len(rows)), len(rows))]
    assert bold(shuffled) == bold(rows)
    for column, (name,) in bold(rows).items():
        cells = text.set_index("method")[column].str[:5].astype(float)
        assert cells[name] == cells.max()
    chosen = data.draw(st.sampled_from(sorted(rows["method"].unique())))
    far = rows.assign(NMI=rows["NMI"] + 1000 * (rows["method"] == chosen))
    assert bold(far) == {column: [chosen] for column in text if column != "method"}
    assert bold(far, among=set(rows["method"]) - {chosen}).get("mean", [""]) != [chosen]


def test_a_data_set_belongs_to_a_column_where_criteria_share_a_name():
    fruit, cars = tidy({"A": {"color": A, "species": C}}), tidy({"A": {"color": B}}, "cars")
    rows = pd.concat([fruit, cars], ignore_index=True)
    assert (
        list(summarise(rows))
        == list(best(rows))
        == ["method", "demo-fruit color", "species", "cars color", "mean"]
    )
    assert summarise(rows)["cars color"].tolist() == ["0.906 ± 0.019"]
    assert list(summarise(fruit.drop(columns="dataset"))) == ["method", "color", "species", "mean"]
    assert summarise(fruit[fruit["seed"] == 0])["color"].tolist() == [
        "0.900"
    ]  # one seed has no spread


def test_published_values_have_sources():
    seen = published()
    assert list(seen) == [
        "dataset",
        "criterion",
        "method",
        "metric",
        "value",
        "source",
    ] and seen.notna().all(axis=None)
    assert (
        not seen.duplicated(["dataset", "criterion", "method", "metric"]).any()
        and seen["value"].between(0, 1).all()
    )
    assert set(published("RI")["metric"]) == {"RI"} and len(published("AMI")) == 0


RUNS = {
    "KMeans": {"color": [0.5, 0.6], "pose": [0.4, 0.4]},
    "MultiSub": {"color": [0.9, 0.8], "pose": [0.7, 0.6]},
}


@pytest.mark.parametrize(
    "dataset, encoder, published_header",
    [
        ("fruit", "ViT-B-32-quickgelu/openai", "color published"),
        ("fruit", "mini", "color published (fruit: other encoder)"),
        ("fruit", "ViT-B-16-quickgelu/openai", "color published (fruit: other encoder)"),
        ("demo-fruit", "ViT-B-32-quickgelu/openai", "color published (fruit: other data)"),
        ("demo-fruit", "mini", "color published (fruit: other data)"),
        ("my pictures", "mini", "color published"),
    ],
)
@pytest.mark.parametrize("metric", ["NMI", "RI"])
def test_published_beside_measured(dataset, encoder, published_header, metric):
    long = compare_with_published(tidy(RUNS, dataset, encoder, metric), metric)
    shown, other = published_table(long)
    same, known = (
        published_header == "color published" and dataset == "fruit",
        dataset != "my pictures",
    )
    source = (
        published(metric)
        .query("dataset == 'fruit' and criterion == 'color'")
        .set_index("method")["value"]
        if known
        else pd.Series(dtype=float)
    )
    assert list(shown["method"]) == [
        "KMeans",
        "Multi-Sub",
        *source.index.difference(["Multi-Sub"], sort=False),
    ]
    assert [c for c in shown if c.endswith("difference")] == ["color difference"] * (
        same and metric == "NMI"
    ) and published_header in shown
    table = shown.set_index("method")
    assert (
        table.loc["Multi-Sub", "color"] == "0.850 ± 0.071"
        and table.loc["KMeans", "pose"] == "0.400 ± 0.000"
    )
    assert {
        name: float(cell) for name, cell in table[published_header].items() if cell
    } == source.to_dict()
    assert (table.filter(regex="^pose published") == "").all(axis=None)
    grey = [column for column in other if other[column].any()]
    assert grey == ([published_header] if len(source) and not same else [])
    assert all((other[column] == (shown[column] != "")).all() for column in grey)
    assert list(long["difference"].notna()) == list(
        long["comparable"] & long["measured"].notna() & long["published"].notna()
    )
    if same and metric == "NMI":
        assert (
            table.loc["Multi-Sub", "color difference"] == "-0.119"
            and (table["color difference"] != "").sum() == 1
        )
    assert long.loc[long["published"].notna(), "source"].ne("").all() and set(
        long["published"].dropna()
    ) == set(source)


def test_the_long_frame_beside():
    rows = pd.concat(
        [
            tidy(RUNS, "fruit", "ViT-B-32/openai"),
            tidy({"MultiMaP": {"order": [0.5]}, "MCV": {"order": [0.4]}}, "demo-card"),
        ]
    )
    long = compare_with_published(rows)
    asked = {
        "dataset",
        "criterion",
        "method",
        "metric",
        "measured",
        "measured_std",
        "seeds",
        "published",
        "published_dataset",
        "comparable",
    }
    assert (
        asked | {"difference", "source"} <= set(long)
        and not long.duplicated(["dataset", "criterion", "method"]).any()
    )
    card = long.query("dataset == 'demo-card'").set_index("method")
    assert card["published_dataset"].eq("card").all() and list(card.index) == [
        "Multi-MaP",
        "MCV",
        "Agent-Centric PMC",
    ]
    assert (
        card.loc["Agent-Centric PMC", "published"],
        card.loc["Agent-Centric PMC", "seeds"],
        card.loc["Multi-MaP", "seeds"],
    ) == (0.9667, 0, 1)
    assert card["difference"].isna().all() and np.isnan(card.loc["Multi-MaP", "published"])
    assert list(published_table(long)[0]["method"][:4]) == [
        "KMeans",
        "Multi-Sub",
        "Multi-MaP",
        "MCV",
    ]
    named = rows.assign(row=rows["method"] + ": prompt")
    assert (
        compare_with_published(named, by="row")
        .set_index(["criterion", "method"])
        .loc[("color", "MultiSub: prompt"), "published"]
        == 0.9693
    )
    with pytest.raises(ValueError, match="several encoders"):
        compare_with_published(pd.concat([tidy(RUNS), tidy(RUNS, encoder="other")]))


class Cells(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.classes, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "td":
            self.classes.append(dict(attrs)["class"].split())
            self.texts.append("")

    def handle_data(self, data):
        if self.tags[-1] in ("td", "b"):
            self.texts[-1] += data.strip("\n ")


def files_of(folder, html=False):
    (note,) = [pd.read_json(path, typ="series") for path in (folder / ".state").glob("*.json")]
    assert [Path(f).suffix for f in note["files"]] == [".csv", ".md", ".tex"]
    return [(folder / f).read_text() for f in note["files"]] + [note["table"]]


NASTY = pd.DataFrame(
    {
        "method": ["<script>alert(1)</script>", r"a&b %_#$ {x} ~^\ [1]"],
        "A|B ± & <i>": ["0.960", "0.5 ± 0.1"],
        "n": [3, 10],
        "x": [0.12345, np.nan],
    }
)
MARKS = pd.DataFrame([[False, True, False, True], [False, False, True, True]])


def test_the_files_of_a_table(tmp_path):
    styler = NotebookOutput("n", tmp_path).table(
        NASTY, "t_1", "50 % of <script>", bold=MARKS, other=~MARKS
    )
    csv, md, tex, html = files_of(tmp_path)
    pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(csv)), NASTY)

    lines = [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in md.splitlines()
    ]
    assert lines[0] == list(NASTY) and lines[2] == [
        "*(<script>alert(1)</script>)*",
        "**0.960**",
        "*(3)*",
        "**0.123**",
    ]
    assert lines[3] == [
        f"*({NASTY.method[1]})*",
        "*(0.5 ± 0.1)*",
        "**10**",
        "",
    ]  # nothing is not marked

    found = Cells(html)
    assert found.texts == [
        NASTY.method[0],
        "0.960",
        "3",
        "0.123",
        NASTY.method[1],
        "0.5 ± 0.1",
        "10",
        "",
    ]
    assert "script" not in found.tags and "i" not in found.tags and found.tags.count("b") == 3
    assert ["other" in c for c in found.classes] == [
        True,
        False,
        True,
        False,
        True,
        True,
        False,
        False,
    ]
    assert (
        html
        == styler.to_html()
        == NotebookOutput("n", tmp_path).table(NASTY, "t_1", bold=MARKS, other=~MARKS).to_html()
    )
    assert "<th" in html and "row_heading" not in html

    assert (
        r"\caption{50 \% of $<$script$>$}" in tex
        and r"\label{tab:n_t_1}" in tex
        and r"\toprule" in tex
        and r"\bottomrule" in tex
    )
    assert (
        r"\textbf{0.960}" in tex
        and r"\textcolor{gray}{0.5 $\pm$ 0.1}" in tex
        and r"A$|$B $\pm$ \& $<$i$>$" in tex
    )
    body = tex[tex.index(r"\toprule") : tex.index(r"\bottomrule")]
    assert (
        r"\textcolor{gray}{a\&b \%\_\#\$ \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} {[}1]}"
        in body
    )
    bare = re.sub(r"\\[&%$#_{}]", "", body)
    assert (
        not re.search(r"[%#_~^±]", bare)
        and bare.count("$") % 2 == 0
        and bare.count("{") == bare.count("}")
    )
    assert [line.count("&") for line in bare.splitlines() if line.endswith(r"\\")] == [3, 3, 3]
    with pytest.raises(ValueError, match=r"\(1, 4\)"):
        NotebookOutput("n", tmp_path).table(NASTY, bold=MARKS[:1])


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            *[
                st.text(
                    st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), max_size=8
                )
            ]
            * 2
        ),
        max_size=3,
    )
)
def test_any_text_keeps_its_place(tmp_path_factory, cells):
    frame = pd.DataFrame(cells, columns=["a", "b"], dtype=object).map(str.strip)
    folder = tmp_path_factory.mktemp("page")
    NotebookOutput("n", folder).table(frame)
    _, _, tex, html = files_of(folder)
    assert Cells(html).texts == frame.to_numpy().ravel().tolist()
    assert len(re.findall(r"(?<!\\)&", tex)) == len(frame) + 1


@given(
    st.lists(
        st.sampled_from(["0.960", "0.912 ± 0.013", "1e-3", "007", "red", "Multi-MaP", ""]),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=20)
def test_markdown_reads_back_as_it_was_written(tmp_path_factory, cells):
    assume(any(cells))
    folder, frame = tmp_path_factory.mktemp("page"), pd.DataFrame({"name": "row", "cell": cells})
    NotebookOutput("n", folder).table(frame)
    read = pd.read_csv(
        io.StringIO(files_of(folder)[1]),
        sep=r"\s*\|\s*",
        engine="python",
        dtype=str,
        keep_default_na=False,
        skiprows=[1],
    )
    assert read["cell"].tolist() == cells


def test_shown_stands_for_the_frame(tmp_path):
    rows = tidy({"A": {"color": A}, "C": {"color": C}})
    NotebookOutput("n", tmp_path).table(rows, shown=summarise(rows), bold=best(rows))
    csv, md, *_ = files_of(tmp_path)
    assert (
        len(pd.read_csv(io.StringIO(csv))) == 10
        and "| A        | **0.930 ± 0.029** | **0.930** |" in md
        and "| 0.260 ± 0.114" in md
    )
    NotebookOutput("n", tmp_path).table(rows[:0], caption="no rows")  # not an error
    assert "no rows" in files_of(tmp_path)[2]


def test_an_effect_is_bold_beyond_its_interval():
    effects = pd.DataFrame(
        {"parameter": ["a", "b", "c"], "effect": [-0.2, 0.1, 0.1], "±": [0.1, 0.1, np.nan]}
    )
    assert (
        tables.significant(effects)["effect"].tolist() == [True, False, False]
        and not tables.significant(effects)["parameter"].any()
    )


def test_the_papers_data_sets_leave_open_what_nobody_has_read():
    table = tables.paper_datasets().set_index(["data set", "criterion"])
    assert table.loc[("cmuface", "identity"), "clusters"] == 20 and pd.isna(
        table.loc[("fruit", "color"), "clusters"]
    )
