"""Tables as the papers print them: methods down, criteria across."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

PAPER_NAMES = {"MultiMaP": "Multi-MaP", "MultiSub": "Multi-Sub", "MultiDProxy": "Multi-DProxy"}
STANDS_FOR = {
    "demo-fruit": "fruit",
    "demo-card": "card",
    "demo-face": "cmuface",
}  # world -> the papers' data set that it is shown beside
BACKBONE = "ViT-B-32-quickgelu/openai"  # CLIP ViT-B/32 with OpenAI's weights, the encoder of the published values


def summarise(rows: pd.DataFrame, metric: str = "NMI", by: str = "method") -> pd.DataFrame:
    """Mean and standard deviation over seeds, "0.912 ± 0.013", methods down and criteria across, with the mean over the criteria.

    Args:
        rows: a tidy frame with criterion, seed, the metric and the column `by`; dataset, where several have a criterion of the same name.
    """
    rows = rows.assign(column=_labels(rows))
    order, criteria = rows[by].unique(), rows["column"].unique()
    cells = rows.groupby([by, "column"])[metric].agg(["mean", "std"])
    text = (
        cells.apply(lambda c: _cell(c["mean"], c["std"]), axis=1)
        .unstack()
        .reindex(index=order, columns=criteria)
    )
    text["mean"] = cells["mean"].unstack().reindex(order).mean(axis=1).map("{:.3f}".format)
    return text.reset_index().rename_axis(columns=None)


def best(
    rows: pd.DataFrame,
    metric: str = "NMI",
    by: str = "method",
    among: Iterable[str] | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Which cells of `summarise` to print in bold: the highest mean of its column, if every other row that competes is lower.

    Lower by a two-sided paired t-test over seeds at `level`, uncorrected for the number of rows; for "mean" over the per-seed means of the
    criteria. A constant difference is lower. Nothing is bold with one seed, one row, or rows of different seeds.

    Args:
        among: the names that compete; None is all.

    Raises:
        ValueError: for a name that has no row, or two values of one row, criterion and seed.
    """
    names = list(rows[by].unique())
    competing = names if among is None else list(among)
    if unknown := set(competing) - set(names):
        raise ValueError(f"no row is named {sorted(unknown)[0]!r}: {', '.join(map(str, names))}")
    rows = rows.assign(column=_labels(rows))
    columns = [*rows["column"].unique()]
    bold = pd.DataFrame(False, index=names, columns=[*columns, "mean"])
    scores = (
        rows[rows[by].isin(competing)]
        .pivot(index=[by, "seed"], columns="column", values=metric)
        .reindex(columns=columns)
    )
    scores["mean"] = scores.mean(
        axis=1, skipna=False
    )  # a row that lacks a criterion has no mean to compare
    for column in scores:
        cells = scores[column].unstack("seed")
        if column != "mean":
            cells = cells.dropna(how="all").dropna(axis=1, how="all")
        if min(cells.shape) < 2 or cells.isna().to_numpy().any():
            continue
        top = cells.mean(axis=1).idxmax()
        above = (cells.loc[top] - cells.drop(index=top)).round(
            12
        )  # what floats add to equal values is no difference
        bold.loc[top, column] = all(_differ(row, level) for row in above.to_numpy())
    return bold.rename_axis(by).reset_index().assign(**{by: False})


def winners(
    rows: pd.DataFrame, metric: str = "NMI", by: str = "method", among: Iterable[str] | None = None
) -> dict[str, str]:
    """The rows that `best` prints in bold: column of `summarise` ("mean" is one) -> name. A column in which none is above all others is left out."""
    bold, names = best(rows, metric, by, among), rows[by].unique()
    return {
        column: names[bold[column].to_numpy().argmax()]
        for column in bold.columns.drop(by)
        if bold[column].any()
    }


def published(metric: str | None = None) -> pd.DataFrame:
    """The papers' values that we have seen: dataset, criterion, method, metric, value, source."""
    seen = pd.read_csv(Path(__file__).with_name("published.csv"))
    return seen if metric is None else seen[seen["metric"] == metric].reset_index(drop=True)


def paper_datasets() -> pd.DataFrame:
    """The papers' data sets: data set, images, criterion, clusters (missing where no source that we could read says), remark."""
    return pd.read_csv(
        Path(__file__).parents[1] / "data" / "paper_datasets.csv",
        dtype={"clusters": "Int64"},
        keep_default_na=True,
    ).fillna({"remark": ""})


def significant(effects: pd.DataFrame) -> pd.DataFrame:
    """Which cells of a frame with columns effect and ± to print in bold: effects that are larger than half their interval."""
    bold = pd.DataFrame(False, index=effects.index, columns=effects.columns)
    bold["effect"] = effects["effect"].abs() > effects["±"]
    return bold


def compare_with_published(
    rows: pd.DataFrame, metric: str = "NMI", by: str = "method"
) -> pd.DataFrame:
    """Published values beside measured ones, a row per data set, criterion and method; a value that no source gave is NaN.

    Methods have the papers' names, measured ones first, then those of the sources alone. `comparable`: data set and encoder are the source's,
    else `difference` (measured - published) is NaN. `published_dataset` is "" where no source has the data set or what it stands for.

    Args:
        rows: a tidy frame with dataset, criterion, encoder, method, seed, the metric and the column `by`.

    Raises:
        ValueError: for a criterion that was measured with several encoders.
    """
    pair, seen = ["dataset", "criterion"], published(metric)
    if (rows.groupby(pair)["encoder"].nunique() > 1).any():
        raise ValueError("several encoders for one data set and criterion: choose one")
    pairs = rows.drop_duplicates(pair)[[*pair, "encoder"]]
    stands_for = pairs["dataset"].replace(STANDS_FOR)
    pairs["published_dataset"] = stands_for.where(stands_for.isin(published()["dataset"]), "")
    pairs["comparable"] = (pairs["dataset"] == pairs["published_dataset"]) & pairs["encoder"].eq(
        BACKBONE
    )

    named = rows.assign(
        method=rows[by].replace(PAPER_NAMES), source_method=rows["method"].replace(PAPER_NAMES)
    )
    measured = (
        named.groupby([*pair, "method", "source_method"], sort=False)[metric]
        .agg(["mean", "std", "count"])
        .reset_index()
    )
    measured.columns = [*pair, "method", "source_method", "measured", "measured_std", "seeds"]
    seen = seen.set_axis(
        ["published_dataset", "criterion", "source_method", "metric", "published", "source"], axis=1
    )
    theirs = pairs.merge(seen, on=["published_dataset", "criterion"])[
        [*pair, "source_method", "published", "source"]
    ]
    long = measured.merge(theirs, on=[*pair, "source_method"], how="outer")
    long["method"], long["seeds"] = (
        long["method"].fillna(long["source_method"]),
        long["seeds"].fillna(0).astype(int),
    )
    long = long.merge(pairs, on=pair).assign(metric=metric)
    long["difference"] = (long["measured"] - long["published"]).where(long["comparable"])

    place = {
        name: i
        for i, name in enumerate(dict.fromkeys([*measured["method"], *seen["source_method"]]))
    }
    across = {name: i for i, name in enumerate(pairs[pair].itertuples(index=False, name=None))}
    long = long.iloc[
        sorted(
            range(len(long)),
            key=lambda i: (across[tuple(long[pair].iloc[i])], place[long["method"].iloc[i]]),
        )
    ]
    numbers = [
        "measured",
        "measured_std",
        "seeds",
        "published",
        "published_dataset",
        "comparable",
        "difference",
        "source",
    ]
    return long[[*pair, "encoder", "method", "metric", *numbers]].reset_index(drop=True)


def published_table(long: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `compare_with_published` found as a table, methods down: for each criterion what was measured, what was published, and their difference if comparable.

    Returns:
        The cells as text, "" where there is nothing, and a boolean frame of the same shape: published, but of other data or another encoder.
    """
    measured_first = (
        long.assign(only=long["seeds"] == 0)
        .groupby("method", sort=False)["only"]
        .all()
        .sort_values(kind="stable")
        .index
    )
    shown = {"method": measured_first.to_series()}
    other = {"method": measured_first.to_series() == ""}
    for label, part in long.groupby(_labels(long), sort=False):
        about, cells = part.iloc[0], part.set_index("method").reindex(measured_first)
        why = "data" if about["published_dataset"] != about["dataset"] else "encoder"
        told = (
            f" ({about['published_dataset']}: other {why})"
            if about["published_dataset"] and not about["comparable"]
            else ""
        )
        shown[label] = cells.apply(lambda c: _cell(c["measured"], c["measured_std"]), axis=1)
        shown[f"{label} published{told}"] = cells["published"].map(
            lambda v: "" if np.isnan(v) else np.format_float_positional(v, min_digits=3)
        )
        other[label] = cells["published"].notna() & False
        other[f"{label} published{told}"] = cells["published"].notna() & (not about["comparable"])
        if cells["difference"].notna().any():
            shown[f"{label} difference"] = cells["difference"].map(
                lambda v: "" if np.isnan(v) else f"{v:+.3f}"
            )
            other[f"{label} difference"] = other[label]
    return pd.DataFrame(shown).reset_index(drop=True), pd.DataFrame(other).reset_index(drop=True)


def _labels(rows: pd.DataFrame) -> pd.Series:
    """The column that each row belongs to: its criterion, or "dataset criterion" where several data sets have one of that name."""
    if "dataset" not in rows:
        return rows["criterion"]
    shared = rows.groupby("criterion")["dataset"].transform("nunique") > 1
    return (
        rows["criterion"].where(~shared, rows["dataset"] + " " + rows["criterion"]).rename("column")
    )


def _cell(mean: float, std: float) -> str:
    """Of one seed the value alone: it has no spread."""
    return "" if np.isnan(mean) else f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def _differ(differences: np.ndarray, level: float) -> bool:
    """Whether paired differences (seeds,) are not zero, by a two-sided t-test; constant ones have no t."""
    if np.ptp(differences) == 0:
        return bool(differences[0] != 0)
    return bool(stats.ttest_1samp(differences, 0).pvalue < 1 - level)
