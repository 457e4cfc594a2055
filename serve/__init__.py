"""The endpoint: thin files that put ``mnist_core``'s predictor behind Ray Serve."""
