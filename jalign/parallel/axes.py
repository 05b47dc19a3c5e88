"""Names of the mesh axes. Every other file imports them from here.

`data` replicates the model, `fsdp` shards parameters and batch, `context` shards parameters and the
tokens of each stream (for rows too long for one device), `tensor` shards the matrices and attention
heads of each layer.
"""

DATA, FSDP, CONTEXT, TENSOR = "data", "fsdp", "context", "tensor"

MESH_AXES = (DATA, FSDP, CONTEXT, TENSOR)  # slowest interconnect first
BATCH_AXES = (DATA, FSDP)  # streams, or rows of attention
TOKEN_AXES = (DATA, FSDP, CONTEXT)  # the flattened tokens of all streams
FSDP_AXES = (FSDP, CONTEXT)  # the side of a matrix that `tensor` leaves
HEAD_AXES = (CONTEXT, TENSOR)  # attention heads; attention sees all tokens of a row
