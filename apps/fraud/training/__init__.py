"""`fraud train`, and what the app provides for `featherweight optimize`."""
