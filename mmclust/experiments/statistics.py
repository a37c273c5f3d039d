"""Statistics over seeds: the confidence interval of a mean, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95  # of confidence; tests use the significance level 1 - LEVEL
DIGITS = 12  # smaller differences are those of floating-point numbers


def interval(values: ArrayLike) -> float:
    """Half the width of the 95 % t-interval of a mean; NaN for fewer than two values."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return float("nan")
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))


def p_value(differences: ArrayLike) -> float:
    """p of paired differences (seeds,): a two-sided t-test of a mean of zero. NaN, which is no
    certainty, for fewer than two, and for differences that are equal up to rounding."""
    differences = np.asarray(differences, dtype=float)
    if len(differences) < 2 or np.ptp(differences) < 10**-DIGITS:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0).pvalue)


def shares_pictures(rows: pd.DataFrame) -> pd.Series:
    """Whether the seeds of each row's data set share pictures: together they draw more than half of
    its `pool`. They are no independent samples then: a t-test says too often that equal methods
    differ."""
    if not {"dataset", "n", "pool"} <= set(rows):  # not rows of `mm.run`
        return pd.Series(False, rows.index)
    seeds = rows.groupby("dataset")["seed"].transform("nunique")
    return (seeds > 1) & (rows["n"] * seeds > rows["pool"].astype(float) / 2)


def criterion_names(rows: pd.DataFrame) -> pd.Series:
    """The criterion of each row; "dataset criterion" if several data sets have it."""
    if "dataset" not in rows:
        return rows["criterion"]
    shared = rows.groupby("criterion")["dataset"].transform("nunique") > 1
    both = rows["dataset"] + " " + rows["criterion"]
    return rows["criterion"].where(~shared, both)


def paired(rows: pd.DataFrame, one: str, other: str, metric: str = "NMI", by: str = "row") -> dict:
    """Compare two settings, paired by seed; the value of a seed is the mean over the criteria that
    both have with this seed.

    `rows` has columns `by` (with the values `one` and `other`), seed, `metric` and, if there are
    several, dataset and criterion. Returns a dictionary: one, other, difference (mean of one -
    other), ± (half the width of its 95 % interval), p (of the paired t-test; NaN if the differences
    are all equal, or if seeds share pictures: `shares_pictures`), seeds (their number).
    """
    rows = rows[rows[by].isin([one, other])]
    unit = [column for column in ("dataset", "criterion", "seed") if column in rows]
    scores = rows.groupby([by, *unit])[metric].mean().unstack(by)
    difference = (scores[one] - scores[other]).dropna().groupby("seed").mean()
    p = float("nan") if shares_pictures(rows).any() else p_value(difference)
    varies = len(difference) > 1 and np.ptp(difference) >= 10**-DIGITS
    pair: dict = {"one": one, "other": other, "difference": round(float(difference.mean()), DIGITS)}
    pair["±"] = interval(difference) if varies else float("nan")
    return pair | {"p": p, "seeds": len(difference)}


def paired_within(
    rows: pd.DataFrame, pairs: Iterable[tuple[str, str]], within: str, metric: str = "NMI",
    by: str = "row",
) -> pd.DataFrame:  # fmt: skip
    """`paired` for each value of the column `within` and each pair of settings, as a data frame,
    `adjusted_for_all` of them. `within="criterion"` means `criterion_names`."""
    pairs = list(pairs)
    values = criterion_names(rows) if within == "criterion" else rows[within]
    table = [
        {within: value} | paired(group, one, other, metric, by)
        for value, group in rows.groupby(values, sort=False)
        for one, other in pairs
    ]
    return adjusted_for_all(pd.DataFrame(table))


def adjusted_for_all(differences: pd.DataFrame) -> pd.DataFrame:
    """Add the column `adjusted p`: p after the correction of Benjamini and Yekutieli for all rows.

    It holds for dependent tests too; its level is the false discovery rate. NaN if p is NaN, which
    counts as a comparison that shows nothing.
    """
    adjusted = stats.false_discovery_control(differences["p"].fillna(1.0), method="by")
    adjusted = pd.Series(adjusted, differences.index).where(differences["p"].notna())
    return differences.assign(**{"adjusted p": adjusted})
