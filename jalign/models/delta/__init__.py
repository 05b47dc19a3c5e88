"""Gated delta nets: layers with a state of fixed size in the place of attention."""
