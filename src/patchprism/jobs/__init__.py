"""Settings, inputs, work in shards, engines, videos: what every command runs through."""
