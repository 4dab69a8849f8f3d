"""Mixtures of Gaussians with full covariances, by exact and pruned EM."""
