"""The embedded model `shapes`: a caption grammar, a renderer, the training recipe and the trained bundle."""
