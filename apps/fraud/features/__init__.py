"""What the model sees: the features of a transaction, from the histories of its customer and its terminal."""
