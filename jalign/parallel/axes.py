"""Names of the mesh axes. Every other file imports them from here.

`data` replicates the model, `fsdp` shards parameters and batch, `expert` does the same and gives
each device some of a mixture's experts, `context` shards parameters and the tokens of each stream
(for rows too long for one device), `tensor` shards the matrices and attention heads of each layer.
"""

DATA, FSDP, EXPERT, CONTEXT, TENSOR = "data", "fsdp", "expert", "context", "tensor"

MESH_AXES = (DATA, FSDP, EXPERT, CONTEXT, TENSOR)  # slowest interconnect first
BATCH_AXES = (DATA, FSDP, EXPERT)  # streams, or rows of attention
TOKEN_AXES = (DATA, FSDP, EXPERT, CONTEXT)  # the flattened tokens of all streams
FSDP_AXES = (FSDP, EXPERT, CONTEXT)  # the side of a matrix that `tensor` leaves
STORE_AXES = (FSDP, CONTEXT)  # that side of an expert's matrix
HEAD_AXES = (CONTEXT, TENSOR)  # attention heads; attention sees all tokens of a row
