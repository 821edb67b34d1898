"""The jobs behind the commands: settings, inputs, work in shards, engines, videos."""
