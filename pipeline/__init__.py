"""What happens before a model sees an image: load, preprocess, augment, batch. Knows neither models nor Ray."""
