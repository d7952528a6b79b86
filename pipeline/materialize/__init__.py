"""Writes what a plan yields to shards, once and for all: a batch job."""
