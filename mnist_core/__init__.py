"""The library of the MNIST system: data, model, training loop, artifact. No Ray and no HTTP in here."""
