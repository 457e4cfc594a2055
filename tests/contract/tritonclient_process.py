"""What tritonclient, unchanged, gets from an endpoint; runs in the client's own environment.

``tritonclient_process.py HTTP GRPC INPUTS OUTPUTS``: addresses as ``host:port``, an ``.npz`` with ``images`` (uint8)
and ``files`` (bytes of ``lengths``, filled up), and where to write the arrays that came back. Prints all else as JSON.
"""

import base64
import json
import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

OUTPUTS = ("probabilities", "digit", "confidence", "rejected")


def make_input(package, datatype, values, **how):
    tensor = package.InferInput("images", list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **how)
    return tensor


def ask(client, tensor, **more):
    result = client.infer("mnist", [tensor], **more)
    return {name: result.as_numpy(name) for name in OUTPUTS if result.as_numpy(name) is not None}


def refusal(function, *arguments, **more):
    try:
        function(*arguments, **more)
    except InferenceServerException as err:
        return [err.status(), err.message()]
    return None


def describe(client):
    """What both clients can ask; the one for gRPC says ``as_json``."""
    as_json = {"as_json": True} if isinstance(client, tritonclient.grpc.InferenceServerClient) else {}
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("mnist"),
        "version ready": client.is_model_ready("mnist", "1"),
        "server": client.get_server_metadata(**as_json),
        "model": client.get_model_metadata("mnist", **as_json),
        "other model": refusal(client.get_model_metadata, "other"),
        "other version": refusal(client.get_model_metadata, "mnist", "77"),
    }


def over_http(client, inputs, found):
    """Every form that HTTP has."""
    package = tritonclient.http
    for kind, (datatype, values) in inputs.items():
        for binary in (True, False):
            sent = np.vectorize(base64.b64encode, otypes=[object])(values) if kind == "files" and not binary else values
            tensor = make_input(package, datatype, sent, binary_data=binary)
            wanted = [package.InferRequestedOutput(name, binary_data=binary) for name in OUTPUTS]
            form = "binary" if binary else "json"
            found[f"http {kind} {form} outputs named"] = ask(client, tensor, outputs=wanted)
            found[f"http {kind} {form} outputs not named"] = ask(client, tensor)


def over_grpc(client, inputs, found):
    """Every form that this client has: it always sends raw contents."""
    for kind, (datatype, values) in inputs.items():
        tensor = make_input(tritonclient.grpc, datatype, values)
        found[f"grpc {kind}"] = ask(client, tensor)
        wanted = [tritonclient.grpc.InferRequestedOutput("digit")]
        found[f"grpc {kind} digit"] = ask(client, tensor, outputs=wanted, model_version="1")


def refusals(client, package, images):
    """What is said of bad requests."""
    blank = images.copy()
    blank[1] = 0
    files = np.array([b"", b"GIF"], object)
    unknown = [package.InferRequestedOutput("logits")]
    good = make_input(package, "UINT8", images)
    return {
        "blank": refusal(client.infer, "mnist", [make_input(package, "UINT8", blank)]),
        "files": refusal(client.infer, "mnist", [make_input(package, "BYTES", files)]),
        "shape": refusal(client.infer, "mnist", [make_input(package, "UINT8", images[:, :5])]),
        "output": refusal(client.infer, "mnist", [good], outputs=unknown),
        "model": refusal(client.infer, "other", [good]),
    }


def main():
    http_address, grpc_address, source, target = sys.argv[1:]
    with np.load(source) as arrays:
        images = arrays["images"]
        files = [file[:length].tobytes() for file, length in zip(arrays["files"], arrays["lengths"], strict=True)]
    inputs = {
        "pixels": ("UINT8", images),
        "floats": ("FP32", images.reshape(len(images), 784).astype(np.float32) / np.float32(255)),
        "bright floats": ("FP32", images[..., None].astype(np.float32)),
        "files": ("BYTES", np.array(files, object)[:, None]),
    }
    found, told = {}, {}
    with tritonclient.http.InferenceServerClient(http_address) as client:
        told["http"] = {**describe(client), "refused": refusals(client, tritonclient.http, images)}
        over_http(client, inputs, found)
        result = client.infer("mnist", [make_input(tritonclient.http, "UINT8", images)], request_id="seven")
        told["http"]["response"] = {**result.get_response(), "outputs": None}
    with tritonclient.grpc.InferenceServerClient(grpc_address) as client:
        told["grpc"] = {**describe(client), "refused": refusals(client, tritonclient.grpc, images)}
        over_grpc(client, inputs, found)
        result = client.infer("mnist", [make_input(tritonclient.grpc, "UINT8", images)], request_id="seven")
        told["grpc"]["response"] = {**result.get_response(as_json=True), "outputs": None, "raw_output_contents": None}
    np.savez(target, **{f"{way}/{name}": array for way, arrays in found.items() for name, array in arrays.items()})
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
