"""Tables as the papers print them: methods down, criteria across."""

from __future__ import annotations

import pandas as pd


def summarise(rows: pd.DataFrame, metric: str = "NMI", by: str = "method") -> pd.DataFrame:
    """Mean and standard deviation over seeds, "0.912 ± 0.013", methods down and criteria across, with the mean over the criteria.

    Args:
        rows: a tidy frame with criterion, seed, the metric and the column `by`.
    """
    order, criteria = rows[by].unique(), rows["criterion"].unique()
    cells = rows.groupby([by, "criterion"])[metric].agg(["mean", "std"]).fillna(0)
    text = cells.apply(lambda c: f"{c['mean']:.3f} ± {c['std']:.3f}", axis=1).unstack().reindex(index=order, columns=criteria)
    text["mean"] = cells["mean"].unstack().reindex(order).mean(axis=1).map("{:.3f}".format)
    return text.reset_index().rename_axis(columns=None)
