"""Asks a container engine what a kubelet asks it. A process of its own: gRPC has threads.

python cri_client.py SOCKET: reads one JSON array [method, request] a line, answers with one JSON object a line.
"""

import json
import pathlib
import sys
import tempfile

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

SERVICE = "runtime.v1.RuntimeService"
PATIENCE = 100


def methods() -> dict[str, tuple[type, type]]:
    """The classes of request and answer of each call, made of cri.proto."""
    source = pathlib.Path(__file__).with_name("cri.proto")
    with tempfile.NamedTemporaryFile() as compiled:
        arguments = ["protoc", f"-I{source.parent}", f"--descriptor_set_out={compiled.name}", str(source)]
        assert protoc.main(arguments) == 0
        files = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(compiled.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    service = pool.FindServiceByName(SERVICE)
    made = message_factory.GetMessageClass
    return {each.name: (made(each.input_type), made(each.output_type)) for each in service.methods}


def main() -> None:
    """One question, one answer, until the end of the input."""
    known = methods()
    channel = grpc.insecure_channel(f"unix://{sys.argv[1]}")
    for line in sys.stdin:
        method, fields = json.loads(line)
        asked, answered = known[method]
        call = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=asked.SerializeToString,  # type: ignore[attr-defined]  # a message made at run time
            response_deserializer=answered.FromString,  # type: ignore[attr-defined]
        )
        try:
            answer = call(json_format.ParseDict(fields, asked()), timeout=PATIENCE, wait_for_ready=True)
            found: dict[str, object] = {"answer": json_format.MessageToDict(answer, preserving_proto_field_name=True)}
        except grpc.RpcError as error:
            found = {"error": f"{error.code().name}: {error.details()}"}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
