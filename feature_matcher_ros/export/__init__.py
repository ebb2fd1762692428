"""From torch models to graphs, each checked against the model it comes from."""
