"""Evidence as people and programs read it: pages, JSON, the model card and the change record."""
