"""What a user writes without a serving framework: FastAPI and uvicorn, one process, LiteRT, no batching.

``serve_fastapi.py MODEL.tflite PORT``; ``POST /predict`` takes the 784 bytes of an image and answers as ours does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from serve_engine import Engine, answer


def build(model: Path) -> FastAPI:
    """The application."""
    app, engine = FastAPI(), Engine(model)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return Response(orjson.dumps(answer(engine, await request.body())), media_type="application/json")

    return app


if __name__ == "__main__":
    uvicorn.run(
        build(Path(sys.argv[1])),
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
