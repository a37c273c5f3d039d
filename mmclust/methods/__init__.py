"""The methods, as scikit-learn style estimators over images."""
