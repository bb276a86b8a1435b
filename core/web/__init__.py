"""What the services of the apps share: API keys, and errors as problem details."""
