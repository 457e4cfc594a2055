"""The messages of the Open Inference Protocol V2 over gRPC."""
