"""What a compiler says of a program, in bytes."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.plan.compile import bytes_on_one, compile_program, needed_bytes


def test_the_refusal_of_a_tpu_compiler_is_read():
    said = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory in memory space hbm. "
        "Used 34.81G of 15.75G hbm. Exceeded hbm capacity by 19.06G."
    )
    assert needed_bytes(said) == 34.81 * 2**30
    assert (
        needed_bytes("RESOURCE_EXHAUSTED: temporaries (17.26G) exceeds available HBM (15.75G)")
        == 17.26 * 2**30
    )
    assert needed_bytes("INTERNAL: something else") is None


def test_arrays_count_what_one_device_holds_and_once():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"))
    split = jax.ShapeDtypeStruct((8, 6), jnp.bfloat16, sharding=NamedSharding(mesh, P("b")))
    whole = jax.ShapeDtypeStruct((5,), jnp.float32, sharding=NamedSharding(mesh, P()))
    assert bytes_on_one([split, whole]) == 2 * 6 * 2 + 5 * 4
    seen: set[int] = set()
    assert bytes_on_one([split, split, whole], seen) == 24 + 20
    assert bytes_on_one(split, seen) == 0


def test_a_program_reports_its_arguments_and_what_is_donated():
    x = jax.ShapeDtypeStruct((1024,), jnp.float32)
    program = compile_program("double", jax.jit(lambda x: 2 * x, donate_argnums=0), (x,))
    assert program.memory is not None
    assert program.memory.arguments == program.memory.aliased == 4096
    assert program.collectives == {}
