"""Audits of datasets: findings about files, images, labels and splits, before any model is trained."""
