import numpy as np

from gmmlib import ConvolutionalGMM, datasets, patches, plotting, posterior

images, paths, skipped = datasets.load_folder("photographs", recursive=True, min_side=16)
for path, image in zip(paths, images, strict=True):
    print(f"taken {str(path)!r}: {image.shape[0]} x {image.shape[1]}")
for path, reason in skipped:
    print(f"skipped {str(path)!r}: {reason}")
X, kept = patches.sample_patches(images, 16, 20_000, 0, min_std=0.04)
X = patches.remove_mean(X)
print(f"{len(X):,} patches from {len(images)} photographs")

model = ConvolutionalGMM(8, zero_mean_patches=True, random_state=0).fit(X)
print(f"{model.score(X) / model.n_dimensions_:.3f} nats per dimension")

order = np.argsort(-model.weights_, kind="stable")
odds = posterior.log_odds(model.log_joint(X))[:, order]
labels = [f"{weight:.1%}" for weight in model.weights_[order]]
figure = plotting.component_sheet(X[posterior.ranking(odds, 10)], model.filters_[order], labels)
figure.savefig("components.png")
