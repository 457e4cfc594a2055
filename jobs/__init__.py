"""The commands: thin files that turn a configuration into Ray jobs made of ``mnist_core`` functions."""
