"""A judge that answers from functions and records what it was asked."""

import math


class Judge:
    """Answers from functions of the prompt, and remembers what it was asked."""

    def __init__(self, p=None, said=None):
        self.p, self.said = p, said
        self.chosen, self.written, self.numbers = [], [], []

    def option_logps(self, prompts, options):
        self.chosen += prompts
        rows = [self.p(prompt) for prompt in prompts]
        return [r and [math.log(r.get(o, 1e-30)) for o in options] for r in rows]

    def complete(self, prompts, *, max_tokens, temperature):
        self.written += prompts
        self.numbers.append((max_tokens, temperature))
        return [self.said(prompt, i) for i, prompt in enumerate(prompts)]
