"""From files to examples: numpy and tokenizers only, never jax."""
