"""Previews: some images of a plan beside their augmented versions."""
