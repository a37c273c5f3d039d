"""Tables: which cells are bold, published values, and the files of a table."""

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
from mmclust.results.output import GRAY_CLASS, NotebookOutput
from mmclust.results.tables import (
    best,
    compare_with_published,
    printed,
    published,
    published_table,
    reruns,
    summarize,
)

A = [0.90, 0.95, 0.91, 0.97, 0.92]
B = [0.88, 0.90, 0.92, 0.93, 0.90]
C = [0.3, 0.2, 0.4, 0.1, 0.3]


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
    marks = best(rows, **options)
    names = summarize(rows)["method"]
    return {column: names[marks[column]].tolist() for column in marks if marks[column].any()}


@st.composite
def grids(draw):
    methods = draw(st.integers(2, 4))
    criteria = draw(st.integers(1, 3))
    seeds = draw(st.integers(2, 5))
    n = methods * criteria * seeds
    values = draw(st.lists(st.integers(0, 20), min_size=n, max_size=n))
    values = np.reshape(values, (methods, criteria, seeds)) / 20
    return tidy({f"m{i}": {f"c{j}": values[i, j] for j in range(criteria)} for i in range(methods)})


def test_bold_is_a_paired_t_test():
    rows = tidy({"A": {"color": A}, "B": {"color": B}, "C": {"color": C}})
    p = ttest_rel(A, B).pvalue  # two-sided; C is far below
    assert 0.01 < p < 0.2 and ttest_rel(A, C).pvalue < p
    assert bold(rows, level=1 - p * 1.001) == {"color": ["A"], "mean": ["A"]}
    assert bold(rows, level=1 - p * 0.999) == {}
    assert bold(rows, level=1 - p * 0.999, among=["A", "C"]) == {"color": ["A"], "mean": ["A"]}
    assert bold(rows, level=1 - p * 1.001, among=["B", "C"]) == {"color": ["B"], "mean": ["B"]}
    with pytest.raises(ValueError, match=r"'D'.*choose from A, B, C"):
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
    assert "species" not in bold(rows)  # a constant difference, which has no t
    varied = rows.assign(NMI=rows["NMI"] + 0.01 * (rows["seed"] == 1) * (rows["method"] == "A"))
    lacking = varied[(varied["method"] == "A") | (varied["criterion"] == "species")]
    # alone in color, and without a mean over the same criteria
    assert bold(lacking) == {"species": ["B"]}
    assert bold(tidy({"A": {"color": A}, "B": {"species": B}})) == {}


def test_nothing_is_bold_without_pairs_of_seeds():
    rows = tidy({"A": {"color": [0.9] * 3}, "B": {"color": [0.1] * 3}})
    assert bold(rows) == {}  # the same difference for all seeds
    rows.loc[0, "NMI"] = 0.91
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
    marks = best(rows)
    text = summarize(rows)
    assert marks.shape == text.shape and list(marks) == list(text) and not marks["method"].any()
    assert marks.sum().max() <= 1
    shuffled = rows.iloc[random.sample(range(len(rows)), len(rows))]
    assert bold(shuffled) == bold(rows)
    for column, (name,) in bold(rows).items():
        cells = text.set_index("method")[column].str[:5].astype(float)
        assert cells[name] == cells.max()
    chosen = data.draw(st.sampled_from(sorted(rows["method"].unique())))
    away = (1000 + rows["seed"]) * (rows["method"] == chosen)
    far = rows.assign(NMI=rows["NMI"] + away)
    assert bold(far) == {column: [chosen] for column in text if column != "method"}
    assert bold(far, among=set(rows["method"]) - {chosen}).get("mean", [""]) != [chosen]


def test_columns_name_the_data_set_where_criteria_share_a_name():
    fruit, cars = tidy({"A": {"color": A, "species": C}}), tidy({"A": {"color": B}}, "cars")
    rows = pd.concat([fruit, cars], ignore_index=True)
    assert (
        list(summarize(rows))
        == list(best(rows))
        == ["method", "demo-fruit color", "species", "cars color", "mean"]
    )
    assert summarize(rows)["cars color"].tolist() == ["0.906 ± 0.019"]
    assert list(summarize(fruit.drop(columns="dataset"))) == ["method", "color", "species", "mean"]
    assert summarize(fruit[fruit["seed"] == 0])["color"].tolist() == [
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
        ("my pictures", "mini", None),
    ],
)
@pytest.mark.parametrize("metric", ["NMI", "RI"])
def test_published_beside_measured(dataset, encoder, published_header, metric):
    long = compare_with_published(tidy(RUNS, dataset, encoder, metric), metric)
    text, not_comparable = published_table(long)
    comparable = published_header == "color published"
    source = pd.Series(dtype=float)
    if dataset != "my pictures":
        rows = published(metric).query("dataset == 'fruit' and criterion == 'color'")
        source = rows.set_index("method")["value"]
    others = source.index.difference(["Multi-Sub"], sort=False)
    names = ["k-means on v", "Multi-Sub", *others]
    assert list(text["method"])[: len(names)] == names
    rerun = set(reruns(metric)["method"].map(printed))
    assert set(text["method"][len(names) :]) <= (rerun if source.size else set())
    differences = [column for column in text if column.endswith("difference")]
    assert differences == (["color difference"] if comparable and metric == "NMI" else [])
    table = text.set_index("method")
    assert table.loc["Multi-Sub", "color"] == "0.850 ± 0.071"
    if published_header is None:  # without a source for any criterion, all are printed
        assert list(table) == ["color", "pose"]
        assert table.loc["k-means on v", "pose"] == "0.400 ± 0.000"
    else:
        assert not any(column.startswith("pose") for column in table), "no source has it"
        cells = {name: float(cell) for name, cell in table[published_header].items() if cell}
        assert cells == source.to_dict()
    gray = [c for c in not_comparable if not_comparable[c].any() and "rerun" not in c]
    assert gray == ([published_header] if len(source) and not comparable else [])
    assert all((not_comparable[column] == (text[column] != "")).all() for column in gray)
    both = long["measured"].notna() & long["published"].notna()
    assert list(long["difference"].notna()) == list(long["comparable"] & both)
    if differences:
        assert table.loc["Multi-Sub", "color difference"] == "-0.119"
        assert (table["color difference"] != "").sum() == 1
    assert long.loc[long["published"].notna(), "source"].ne("").all()
    assert set(long["published"].dropna()) == set(source)


def test_the_frame_of_published_values():
    rows = pd.concat(
        [
            tidy(RUNS, "fruit", "ViT-B-32/openai"),
            tidy({"MultiMaP": {"order": [0.5]}, "MCV": {"order": [0.4]}}, "demo-card"),
        ]
    )
    long = compare_with_published(rows)
    columns = {
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
        columns | {"difference", "source"} <= set(long)
        and not long.duplicated(["dataset", "criterion", "method"]).any()
    )
    card = long.query("dataset == 'demo-card'").set_index("method")
    assert card["published_dataset"].eq("card").all()
    expected = ["Multi-MaP", "MCV", "Agent-Centric PMC"]
    assert [method for method in card.index if method in expected] == expected
    assert card.index.is_unique and "k-means on v" in card.index, "that others ran"
    assert (
        card.loc["Agent-Centric PMC", "published"],
        card.loc["Agent-Centric PMC", "seeds"],
        card.loc["Multi-MaP", "seeds"],
    ) == (0.9667, 0, 1)
    assert card["difference"].isna().all() and np.isnan(card.loc["Multi-MaP", "published"])
    assert list(published_table(long)[0]["method"][:4]) == [
        "k-means on v",
        "Multi-Sub",
        "Multi-MaP",
        "MCV",
    ]
    named = rows.assign(row=rows["method"] + ": prompt")
    assert (
        compare_with_published(named, by="row")
        .set_index(["criterion", "method"])
        .loc[("color", "Multi-Sub: prompt"), "published"]
        == 0.9693
    )
    with pytest.raises(ValueError, match=r"several encoders for demo-fruit by color: mini, other"):
        compare_with_published(pd.concat([tidy(RUNS), tidy(RUNS, encoder="other")]))


def everything_measured(metric, encoder="ViT-B-32-quickgelu/openai"):
    """A row of every method for every data set and criterion of both files, all 0.5."""
    values = pd.concat([published(), reruns()])[["dataset", "criterion", "method"]]
    return values.drop_duplicates().assign(encoder=encoder, seed=0, **{metric: 0.5})


@pytest.mark.parametrize("metric", ["NMI", "RI", "ARI"])
def test_values_that_others_ran_are_never_among_the_published(metric):
    key = ["dataset", "criterion", "method"]
    long = compare_with_published(everything_measured(metric), metric)
    seen = long[long["published"].notna()].set_index(key)["published"].to_dict()
    assert seen == published(metric).set_index(key)["value"].to_dict()
    columns = long.columns[long.columns.str.startswith("rerun by ")]
    rerun = reruns(metric).assign(method=lambda rows: rows["method"].map(printed))
    assert set(columns) == set("rerun by " + rerun["by"])
    for column, (_, group) in zip(sorted(columns), rerun.groupby("by")):
        rerun_here = long[long[column].notna()].set_index(key)[column].to_dict()
        assert rerun_here == group.set_index(key)["value"].to_dict()
    text, _ = published_table(long)
    headers = text.columns[text.columns.str.contains("published")]
    printed_values = set(text[headers].stack()) - {""}
    only_rerun = set(rerun["value"]) - set(published(metric)["value"])
    assert not only_rerun & set(map(float, printed_values))
    for by in set(rerun["by"]):
        assert text.columns.str.endswith(f" rerun by {by}").any(), "labeled by who ran it"


def test_reruns_have_sources_and_the_papers_encoder_or_an_unnamed_one():
    values = reruns()
    assert values.notna().all(axis=None) and values["value"].between(0, 1).all()
    key = ["dataset", "criterion", "method", "metric", "by"]
    assert not values.duplicated(key).any()
    assert set(values["encoder"]) == {"CLIP ViT-B/32", "as in that paper"}
    clevr4 = values.query("dataset == 'clevr4' and method == 'CRL' and metric == 'NMI'")
    assert set(clevr4["criterion"]) == {"texture", "shape", "color", "count"}
    assert clevr4["by"].eq("arXiv 2510.04564 (NeurIPS 2025)").all()


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
        NASTY, "t_1", "50 % of <script>", bold=MARKS, not_comparable=~MARKS
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

    parsed = Cells(html)
    assert parsed.texts == [
        NASTY.method[0],
        "0.960",
        "3",
        "0.123",
        NASTY.method[1],
        "0.5 ± 0.1",
        "10",
        "",
    ]
    assert "script" not in parsed.tags and "i" not in parsed.tags and parsed.tags.count("b") == 3
    assert [GRAY_CLASS in classes for classes in parsed.classes] == [
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
        == NotebookOutput("n", tmp_path)
        .table(NASTY, "t_1", bold=MARKS, not_comparable=~MARKS)
        .to_html()
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
    special = r"a\&b \%\_\#\$ \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} {[}1]"
    assert rf"\textcolor{{gray}}{{{special}}}" in body
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
def test_any_text_stays_in_its_cell(tmp_path_factory, cells):
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
def test_markdown_can_be_read_back(tmp_path_factory, cells):
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


def test_the_displayed_table_may_differ_from_the_frame(tmp_path):
    rows = tidy({"A": {"color": A}, "C": {"color": C}})
    NotebookOutput("n", tmp_path).table(rows, displayed=summarize(rows), bold=best(rows))
    csv, md, *_ = files_of(tmp_path)
    assert (
        len(pd.read_csv(io.StringIO(csv))) == 10
        and "| A        | **0.930 ± 0.029** | **0.930** |" in md
        and "| 0.260 ± 0.114" in md
    )
    NotebookOutput("n", tmp_path).table(rows[:0], caption="no rows")  # not an error
    assert "no rows" in files_of(tmp_path)[2]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("-0.00", "0.00"),
        ("NMI -0.00; at least -0.000.", "NMI 0.00; at least 0.000."),
        ("(-0.0) and -0, by -0", "(0.0) and 0, by 0"),
        *[
            (text, text)
            for text in ("-0.01", "-0.001 ± 0.000", "10-0.5", "2024-01-00", "1e-0", "a-0.0")
        ],
    ],
)
def test_zeros_have_no_minus(text, expected):
    assert tables.without_negative_zero(text) == expected


def test_no_cell_of_a_table_is_a_negative_zero(tmp_path):
    frame = pd.DataFrame({"difference": [-0.0001, -0.0, -0.1]})
    NotebookOutput("a", tmp_path).table(frame, "t")
    cells = re.findall(r"-?\d\.\d+", (tmp_path / "a_t.md").read_text(encoding="utf-8"))
    assert cells == ["0.000", "0.000", "-0.100"]


def test_unknown_numbers_of_the_papers_data_sets_are_missing():
    table = tables.paper_datasets().set_index(["data set", "criterion"])
    assert table.loc[("cmuface", "identity"), "clusters"] == 20 and pd.isna(
        table.loc[("fruit", "color"), "clusters"]
    )
