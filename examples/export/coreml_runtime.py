"""python coreml_runtime.py FILE.mlpackage.zip PICTURE: the notes in a picture, by Core ML, on macOS."""

import json
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import coremltools
from notes import found, prepared

with TemporaryDirectory() as folder:
    with zipfile.ZipFile(sys.argv[1]) as archive:
        archive.extractall(folder)
    (package,) = Path(folder).glob("*.mlpackage")
    # units other than the CPU compute in 16 bits
    model = coremltools.models.MLModel(str(package), compute_units=coremltools.ComputeUnit.CPU_ONLY)
about = json.loads(model.user_defined_metadata["smartcash"])
images, back = prepared(sys.argv[2], about)
print(json.dumps(found(model.predict({about["input"]["name"]: images}), about, back)))
