"""The `flexkv` command: what an operator sees. The only part of the product that prints; nothing imports it."""
