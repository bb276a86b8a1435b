"""Makes trained models small and fast, proves that their decisions did not get worse, and runs them."""
