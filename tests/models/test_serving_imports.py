import subprocess
import sys

SERVING = "import agents.lanes, exporters, models.predictor, models.artifact, stream.__main__, stream.compose"
TRAINING_ONLY = ("tensorflow", "keras", "tf2onnx", "onnx", "h5py", "sklearn")  # numba takes scipy where it is


def test_serving_imports_nothing_of_the_training_set() -> None:
    script = f"{SERVING}\nimport sys\nprint(*(name for name in {TRAINING_ONLY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def test_the_training_code_imports_tensorflow_only_when_it_trains() -> None:
    script = "import models.train, models.lstm, sys\nprint('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False"]
