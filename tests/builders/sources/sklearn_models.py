"""Fitted estimators with their outputs; run in a separate process."""

import warnings

import joblib
import numpy as np
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
X = rng.normal(3, 10, (300, 5))
Y = (X[:, 0] + 2 * X[:, 1] > 8).astype(int) + (X[:, 2] > 10)

ESTIMATORS = {
    "logistic": LogisticRegression(),
    "mlp": MLPClassifier(max_iter=20, random_state=0),
    "forest": RandomForestClassifier(10, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=5),
    "histogram": HistGradientBoostingClassifier(max_iter=5),
    "columns": make_pipeline(
        make_column_transformer((StandardScaler(), [0, 1]), (MinMaxScaler(), [2])),
        LogisticRegression(),
    ),
}


def unfitted():
    return LogisticRegression()


def text():
    letters = np.array([["a"], ["b"]] * 10)
    return make_pipeline(OneHotEncoder(), LogisticRegression()).fit(letters, [0, 1] * 10)


def words():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(
        X, np.array(["no", "yes", "maybe"])[Y]
    )


def margins():
    return make_pipeline(StandardScaler(), LinearSVC()).fit(X, Y > 0)


def regressor():
    return RandomForestRegressor(5, random_state=0).fit(X, Y)


def make(folder):
    table = rng.normal(3, 10, (200, 5)).astype(np.float32)
    expected = {"x": table}
    for name, estimator in ESTIMATORS.items():
        before = [] if name == "columns" else [StandardScaler()]
        fitted = make_pipeline(*before, estimator).fit(X, Y)
        joblib.dump(fitted, folder / f"{name}.joblib")
        expected[name] = fitted.predict_proba(table)
        expected[f"{name}_label"] = fitted.predict(table)
    np.savez(folder / "expected.npz", **expected)
    joblib.dump({"a": 1}, folder / "dict.pkl")
    (folder / "text.pkl").write_bytes(b"not a pickle")
