"""What the five networks are: names, shapes, weights, and the DeepCache split."""
