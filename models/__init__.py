"""Networks and what is asked of them: the zoo, training, class activation maps, audits."""
