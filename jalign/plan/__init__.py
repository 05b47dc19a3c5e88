"""What a run would need on hardware that is not here, from the compilers of that hardware."""
