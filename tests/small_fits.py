"""Fits of every model, printed as a chapter would: run as a program by test_reproducible.py."""

import warnings

import numpy as np

from gmmlib import ConvolutionalGMM, FullGMM, GenerativeClassifier, StackedGMM, datasets, posterior
from gmmlib.stationary.discriminative import DiscriminativeGMM
from gmmlib.stationary.hierarchical import HierarchicalGMM
from gmmlib.stationary.penalised import PenalisedGMM
from gmmlib.stationary.phaseblind import PhaseBlindGMM
from gmmlib.stationary.transformed import TransformedGMM

warnings.simplefilter("ignore")
images, digit = datasets.load_mnist("train", "sample")
images, digit = images[:400], digit[:400]
rows = images[:, ::2, ::2].reshape(400, -1)
lower, upper = (
    ConvolutionalGMM(6, max_iter=5, random_state=0, tol=0.0),
    FullGMM(3, max_iter=10, random_state=0),
)
models = {
    "convolutional": (ConvolutionalGMM(8, variance_floor=1e-4, max_iter=10, random_state=0, tol=0.0), images),
    "stochastic": (ConvolutionalGMM(8, max_iter=5, algorithm="sem", random_state=0, tol=0.0), images),
    "priced": (PenalisedGMM(4, strength=10.0, max_iter=3, random_state=0, tol=0.0), images),
    "full": (FullGMM(3, reg_covar=1e-2, max_iter=8, init="random_from_data", random_state=0), rows),
    "k-means": (FullGMM(3, reg_covar=1e-2, max_iter=8, random_state=0), rows),
    "stack": (StackedGMM([lower, upper]), images),
    "templates": (TransformedGMM(3, max_iter=3, random_state=0, tol=0.0), images[:60]),
    "phase-blind": (PhaseBlindGMM(2, max_iter=5, random_state=0), images),
    "hierarchical": (
        HierarchicalGMM(6, 3, max_iter=5, random_state=0, tol=0.0),
        images.reshape(200, 2, 28, 28),
    ),
    "by class": (GenerativeClassifier(ConvolutionalGMM(1, max_iter=2, tol=0.0), random_state=0), images),
    "for the class": (DiscriminativeGMM(1, max_iter=3, random_state=0), images),
}
for name, (model, X) in models.items():
    fit = model.fit(X, digit) if name.endswith("class") else model.fit(X)
    print(name, f"{posterior.evidence(fit.log_joint(X)).mean():.6f}", "".join(map(str, fit.predict(X))))
    if hasattr(model, "log_likelihoods_"):
        print(" ".join(f"{value:.6f}" for value in model.log_likelihoods_))
odds = posterior.log_odds(models["convolutional"][0].log_joint(images))
print(posterior.ranking(odds, 10).tolist())
print(np.round(models["full"][0].sample(3, 0)[0].mean(), 8))
