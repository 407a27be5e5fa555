"""The shard format: writing, reading, verifying (docs/shards.md)."""
