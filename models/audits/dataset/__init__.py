"""Audits of datasets: what files, images, labels and splits show before any model is trained."""
