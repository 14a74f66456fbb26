"""Members of the experts' family: `build(options, trunk, tasks, seed) -> Trunk`, with the experts in it."""
