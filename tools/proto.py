"""`make proto`: write the message classes of proto/*.proto to sysvisor_runc/contract/.

The services are not generated: they go by four names over one set of methods, which `contract/names.py` lists. What is
generated runs on every protobuf since 3.20, as Debian has it: the compiler's demand for a runtime as new as itself is
taken out, since nothing newer is used.
"""

import pathlib
import re
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[1]
TARGET = SOURCE / "sysvisor_runc/contract"
PACKAGE = "sysvisor_runc.contract"
_VERSION_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version.*?$|^_runtime_version\.ValidateProtobufRuntimeVersion\(.*?^\)$",
    re.MULTILINE | re.DOTALL,
)
_OURS = re.compile(r"^import (sysvisor_\w+_pb2) as (\w+)$", re.MULTILINE)


def main() -> int:
    """Generate, adapt, say what was written."""
    sources = sorted(path.name for path in (SOURCE / "proto").glob("*.proto"))
    options = [f"-I{SOURCE / 'proto'}", f"--python_out={TARGET}", f"--pyi_out={TARGET}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *sources], check=True)
    for path in [*TARGET.glob("*_pb2.py"), *TARGET.glob("*_pb2.pyi")]:
        text = path.read_text()
        text = _VERSION_CHECK.sub("", text)
        text = text.replace("_Mapping]", "_Mapping[str, object]]")  # mypy --strict wants the parameters
        text = _OURS.sub(rf"from {PACKAGE} import \1 as \2", text)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
