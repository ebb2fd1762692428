"""Training of matchers: views with exact geometry, the loss of every layer, the two stages of the recipe."""
