"""Programs that load exports with the tools they are for; none of them imports manyhead, and none is imported."""
