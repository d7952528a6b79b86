"""Training tasks: targets, loss and metrics of classification, multi-label classification and segmentation."""
