"""From features to an outcome: the scorer, its rule, and the model that decides now."""
