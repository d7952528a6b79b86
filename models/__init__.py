"""Model zoo, training, class activation maps and audits."""
