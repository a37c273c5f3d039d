"""Tables of scores: a row per method and a column per criterion, measured next to published values.

`published.csv` holds the values that a method's authors published and that could be read in a
source, each with that source; `reruns.csv` those of comparisons that others ran. The two have
different columns in every table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from mmclust.data.paper_datasets import PAPER_DATASETS
from mmclust.experiments.statistics import LEVEL, criterion_names, p_value, shares_pictures

# class of a method -> its name in tables and figures
PRINTED_NAMES = {
    "KMeans": "k-means on v", "MultiMaP": "Multi-MaP", "MultiSub": "Multi-Sub",
    "MultiDProxy": "Multi-DProxy",
}  # fmt: skip
# rendered data set, or part of one -> that of the papers whose values are printed next to it
STANDS_FOR = {"demo-fruit": "fruit", "demo-card": "card", "demo-face": "cmuface"} | {
    name: spec.part_of for name, spec in PAPER_DATASETS.items() if spec.part_of
}
# the encoder of the published values: CLIP ViT-B/32 with OpenAI's weights
BACKBONE = "ViT-B-32-quickgelu/openai"
RERUN_ENCODER = "CLIP ViT-B/32"  # its name in reruns.csv
PAIR = ["dataset", "criterion"]
TIE = 0.01  # scores that differ by less are listed together
RERUN = "rerun by "  # of the names of columns


def printed(name: object) -> str:
    """A text with the printed names of the methods in it: "Multi-Sub: word" of "MultiSub: word"."""
    return re.sub(rf"\b({'|'.join(PRINTED_NAMES)})\b", lambda m: PRINTED_NAMES[m[0]], str(name))


def without_negative_zero(text: str) -> str:
    """A text with its numbers, in which zeros have no minus: "0.00" of "-0.00"."""
    return re.sub(r"(?<![\w.])-(?=0(\.0+)?(?!\.?\w))", "", text)


def summarize(rows: pd.DataFrame, metric: str = "NMI", by: str = "method") -> pd.DataFrame:
    """Mean and standard deviation over seeds, "0.912 ± 0.013", and the mean over criteria.

    `rows`: a tidy frame with criterion, seed, the metric and the column `by`; and dataset, if
    several data sets have a criterion of the same name.
    """
    rows = rows.assign(column=criterion_names(rows))
    order = rows[by].unique()
    cells = rows.groupby([by, "column"])[metric].agg(["mean", "std"])
    text = cells.apply(lambda cell: _cell(cell["mean"], cell["std"]), axis=1).unstack()
    text = text.reindex(index=order, columns=rows["column"].unique())
    text["mean"] = cells["mean"].unstack().reindex(order).mean(axis=1).map("{:.3f}".format)
    text.index = text.index.map(printed)
    return text.reset_index().rename_axis(columns=None)


def best(
    rows: pd.DataFrame, metric: str = "NMI", by: str = "method",
    among: Iterable[str] | None = None, level: float = LEVEL,
) -> pd.DataFrame:  # fmt: skip
    """The cells of `summarize` to print in bold: the best of a column, if all others are
    significantly lower.

    The test is a two-sided paired t-test over seeds with the confidence `level`, not corrected for
    the number of rows; in the column "mean", it compares means over criteria, one per seed. No
    cell of a column is bold if the column has one seed, one row, or rows with different seeds; if a
    difference is the same for all seeds; or if seeds share pictures (`shared_note`).

    `among`: the names that compete, by default all. Raises ValueError for an unknown name, or if
    a combination of name, criterion and seed occurs twice.
    """
    names = list(rows[by].unique())
    competing = names if among is None else list(among)
    if unknown := set(competing) - set(names):
        choices = ", ".join(map(str, names))
        raise ValueError(f"unknown {by} {sorted(unknown)[0]!r}: choose from {choices}")
    rows = rows.assign(column=criterion_names(rows))
    columns = list(rows["column"].unique())
    bold = pd.DataFrame(False, index=names, columns=[*columns, "mean"])
    rows = rows[rows[by].isin(competing)]
    shared = set(rows.loc[shares_pictures(rows), "column"])
    shared |= {"mean"} if shared else set()
    scores = rows.pivot(index=[by, "seed"], columns="column", values=metric)
    scores = scores.reindex(columns=columns)
    scores["mean"] = scores.mean(axis=1, skipna=False)  # missing if a criterion is missing
    for column in scores:
        cells = scores[column].unstack("seed")
        if column != "mean":
            cells = cells.dropna(how="all").dropna(axis=1, how="all")
        if column in shared or min(cells.shape) < 2 or cells.isna().to_numpy().any():
            continue
        top = cells.mean(axis=1).idxmax()
        differences = cells.loc[top] - cells.drop(index=top)
        bold.loc[top, column] = all(p_value(row) < 1 - level for row in differences.to_numpy())
    return bold.rename_axis(by).reset_index().assign(**{by: False})


def extremes(scores: pd.Series) -> tuple[str, str]:
    """The highest and the lowest score as texts, each with the names (the index of `scores`) of all
    that differ from it by less than `TIE`: "0.94 (a; b: within 0.01 of each other)"."""
    texts = []
    for value in (scores.max(), scores.min()):
        names = scores.index[(scores - value).abs() < TIE]
        tie = f": within {TIE} of each other" if len(names) > 1 else ""
        texts.append(f"{value:.2f} ({'; '.join(names)}{tie})")
    return texts[0], texts[1]


def shared_note(rows: pd.DataFrame) -> str:
    """A sentence for captions and findings, after a space, if seeds share pictures; else ""."""
    shared = shares_pictures(rows)
    if not shared.any():
        return ""
    names = "" if shared.all() else f" of {', '.join(rows.loc[shared, 'dataset'].unique())}"
    return (
        f" The seeds share pictures{names}, so intervals hold for these pictures, not for others "
        "of their kind, and no difference is called certain."
    )


def published(metric: str | None = None) -> pd.DataFrame:
    """The values of `published.csv`: dataset, criterion, method, metric, value, source."""
    values = pd.read_csv(Path(__file__).with_name("published.csv"))
    return values if metric is None else values[values["metric"] == metric].reset_index(drop=True)


def reruns(metric: str | None = None) -> pd.DataFrame:
    """The values of `reruns.csv`: dataset, criterion, method, encoder, metric, value, source, `by`.

    They are of comparisons that others ran, with the papers' encoder or one that they do not name;
    `by`: whose they are, the beginning of the source.
    """
    values = pd.read_csv(Path(__file__).with_name("reruns.csv"))
    values = values[values["encoder"].isin([RERUN_ENCODER, "as in that paper"])]
    values = values.assign(by=values["source"].str.partition(",")[0])
    return values if metric is None else values[values["metric"] == metric].reset_index(drop=True)


def paper_datasets() -> pd.DataFrame:
    """The papers' data sets: data set, images, criterion, clusters (NA: no source), remark."""
    path = Path(__file__).parents[1] / "data/paper_datasets.csv"
    return pd.read_csv(path, dtype={"clusters": "Int64"}).fillna({"remark": ""})


def compare_with_published(
    rows: pd.DataFrame, metric: str = "NMI", by: str = "method"
) -> pd.DataFrame:
    """Measured and published values, a row per data set, criterion and method.

    Methods have the names of the papers; those that were measured come first. A value that was not
    measured, or not published, is NaN. `comparable`: data set and encoder are those of the source;
    else `difference` (measured - published) is NaN. `published_dataset`: the data set itself, or
    the one in `STANDS_FOR`; "" if no source has it. Values of comparisons that others ran have a
    column per source, "rerun by ...".

    `rows`: a tidy frame with dataset, criterion, encoder, method, seed, the metric and the column
    `by`. Raises ValueError for a criterion that was measured with several encoders.
    """
    pairs = _published_pairs(rows)
    key = [*PAIR, "source_method"]
    names = {"method": rows[by], "source_method": rows["method"]}
    named = rows.assign(**{name: column.map(printed) for name, column in names.items()})
    groups = named.groupby([*PAIR, "method", "source_method"], sort=False)[metric]
    measured = groups.agg(measured="mean", measured_std="std", seeds="count").reset_index()
    renamed = {"dataset": "published_dataset", "method": "source_method", "value": "published"}
    sources = published(metric).rename(columns=renamed)
    theirs = pairs.merge(sources, on=["published_dataset", "criterion"])
    others = reruns(metric).rename(columns={"dataset": "published_dataset"})
    others["source_method"] = others["method"].map(printed)
    others = pairs.merge(others, on=["published_dataset", "criterion"])
    others = others.pivot(index=key, columns="by", values="value").add_prefix(RERUN)
    long = measured.merge(theirs[[*key, "published", "source"]], on=key, how="outer")
    long = long.merge(others.reset_index(), on=key, how="outer")
    long["method"] = long["method"].fillna(long["source_method"])
    long["seeds"] = long["seeds"].fillna(0).astype(int)
    long = long.merge(pairs, on=PAIR).assign(metric=metric)
    long["difference"] = (long["measured"] - long["published"]).where(long["comparable"])

    methods = pd.unique(pd.concat([measured["method"], sources["source_method"], long["method"]]))
    rank = long["method"].map({name: i for i, name in enumerate(methods)})
    long = long.assign(rank=rank).sort_values(["pair", "rank"], kind="stable")
    columns = [*PAIR, "encoder", "method", "metric", "measured", "measured_std", "seeds"]
    columns += ["published", "published_dataset", "comparable", "difference", "source", *others]
    return long[columns].reset_index(drop=True)


def _published_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per measured data set and criterion: `pair` (its number), `published_dataset` and
    `comparable`."""
    for (dataset, criterion), encoders in rows.groupby(PAIR)["encoder"].unique().items():
        if len(encoders) > 1:
            names = ", ".join(encoders)
            raise ValueError(f"several encoders for {dataset} by {criterion}: {names}; choose one")
    pairs = rows.drop_duplicates(PAIR)[[*PAIR, "encoder"]]
    source = pairs["dataset"].replace(STANDS_FOR)
    source = source.where(source.isin([*published()["dataset"], *reruns()["dataset"]]), "")
    comparable = (pairs["dataset"] == source) & (pairs["encoder"] == BACKBONE)
    return pairs.assign(published_dataset=source, comparable=comparable, pair=range(len(pairs)))


def published_table(long: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`compare_with_published` as a table: a row per method; measured, published and difference of
    each criterion as columns. If sources have some of the criteria, the others are left out.

    Returns the cells as text, and a boolean frame of the same shape: True for published values that
    are not comparable, because they are for other data or another encoder.
    """
    sources = ["published", *(column for column in long if column.startswith(RERUN))]
    known = long[sources].notna().any(axis=1).groupby(criterion_names(long)).transform("any")
    long = long[known] if known.any() else long
    measured = long.groupby("method", sort=False)["seeds"].any()
    methods = measured.sort_values(ascending=False, kind="stable").index
    table = pd.DataFrame({"method": methods}, index=methods)
    gray = {}
    for criterion, rows in long.groupby(criterion_names(long), sort=False):
        cells = rows.set_index("method").reindex(methods)
        first = rows.iloc[0]
        table[criterion] = cells.apply(lambda c: _cell(c["measured"], c["measured_std"]), axis=1)
        for column in [column for column in sources if cells[column].notna().any()]:
            header = f"{criterion} {column}"
            if column == "published" and not first["comparable"]:
                what = "encoder" if first["published_dataset"] == first["dataset"] else "data"
                header += f" ({first['published_dataset']}: other {what})"
            table[header] = _digits_of_source(cells[column])
            gray[header] = cells[column].notna() & (not first["comparable"])
        if cells["difference"].notna().any():
            differences = cells["difference"].map(_signed, na_action="ignore")
            table[f"{criterion} difference"] = differences.fillna("")
    not_comparable = pd.DataFrame(gray, methods).reindex(columns=table.columns, fill_value=False)
    return table.reset_index(drop=True), not_comparable.reset_index(drop=True)


def _digits_of_source(values: pd.Series) -> pd.Series:
    """The values as text with the digits of their source, at least three; "" where missing."""
    texts = [np.format_float_positional(value, min_digits=3) for value in values]
    return pd.Series(texts, values.index).replace("nan", "")


def _signed(difference: float) -> str:
    return without_negative_zero(f"{difference:+.3f}")


def _cell(mean: float, std: float) -> str:
    if np.isnan(mean):
        return ""
    text = f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"  # one seed has no std
    return without_negative_zero(text)
