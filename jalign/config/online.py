"""The sections of a config that only online algorithms read."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from jalign.user_code import name_of


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How responses are sampled from the policy, and how often they are learnt from.

    Args:
        prompts: prompts per rollout, a multiple of batch_size; 0: batch_size, and where a method
          learns from samples of its reference (sppo_samples, dno_prct, spin_online) as many as make
          an iteration of ref_sync_steps optimizer steps.
        responses: responses per prompt; 0: what the method is known with.
        epochs: passes over a rollout.
        max_new_tokens: most tokens of a response, which dr_grpo divides by.
        temperature: of sampling, and of the log-probs of training where a method follows the
          gradient of what is sampled; preferences and best responses are learnt at 1.
        top_k: keep the most probable tokens only; 0: all. The log-probs of training know no cut.
        top_p: keep the smallest set of tokens with this probability.
        stop: texts that end a response; the text stays.
        sample_batch: prompts that are sampled together; 0: rollout.prompts, or batch_size.
        rows: responses that are sampled at once; a row that ends takes the next prompt. For many
          responses of uneven length. 0: all are sampled together and wait for the longest.
        weights: of the policy while it samples: sharded as in training, so that every token gathers
          what mesh.fsdp and mesh.context split; or gathered once per rollout into a copy, in the
          compute type and split over mesh.tensor only, where a device has room for it.
        mixture: of sampling from policy^(1 - mixture) * reference^mixture, where a method does.
        kl_target: nats per response to which kl_coef is steered; 0 leaves it as it is.
        kl_horizon: responses over which it is steered.
        importance_cap: most that the advantage of a token counts where sampler and trainer give
          it other log-probs; KL terms and the critic's loss are as they were. 0: they are not
          compared.
        attempts: rollouts that may be sampled to fill one where a method leaves groups out; each
          has prompts of its own, which are passed over where they are not needed.
        mask_truncated: the loss leaves out responses that did not end by themselves. Where samples
          are weighed against each other their rewards still count in the mean and deviation of the
          others (as in DAPO and TRL); where responses are chosen (the best, chosen and rejected)
          they are none of them.
        max_idle: rollouts in a row that teach nothing, since no response has a reward or the
          rewards of the responses to every prompt are all equal, after which the run ends with
          exit code 6; three where rewards fail for all responses, and one if it is the first of
          the run. 0: the run goes on whatever happens.
        record: write every rollout to the run's folder (`jalign rollouts`).
    """

    prompts: int = 0
    responses: int = 0
    epochs: int = 1
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop: list[str] = field(default_factory=list)
    sample_batch: int = 0
    rows: int = 0
    weights: Literal["sharded", "gathered"] = "sharded"
    mixture: float = 0.5
    kl_target: float = 0.0
    kl_horizon: int = 10_000
    importance_cap: float = 0.0
    attempts: int = 1
    mask_truncated: bool = False
    max_idle: int = 20
    record: bool = False

    def __post_init__(self):
        least = {
            "prompts": 0, "responses": 0, "epochs": 1, "max_new_tokens": 1, "top_k": 0,
            "sample_batch": 0, "rows": 0, "kl_target": 0, "kl_horizon": 1, "importance_cap": 0,
            "attempts": 1, "max_idle": 0,
        }  # fmt: skip
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"rollout.{name} must be >= {smallest}, got {getattr(self, name)}")
        if "" in self.stop:
            raise ValueError("rollout.stop: an empty text would stop everywhere")
        if self.temperature <= 0:
            raise ValueError(f"rollout.temperature must be > 0, got {self.temperature}")
        for name in ("top_p", "mixture"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"rollout.{name} must be in (0, 1], got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class LanguageModelConfig:
    """A language model that is asked.

    Args:
        model: a run, a folder, a hub name or "embedded", in this process; or what the server calls
          its model.
        server: base URL of a server with the OpenAI API, up to where chat/completions follows. The
          key comes from the environment variable JALIGN_JUDGE_API_KEY.
        cache: folder in which a server's answers are kept.
        concurrency: most requests at once.
        timeout_s: seconds that a server may take to answer.
        retries: further attempts after one that failed in passing.
        prompt_price, completion_price: of a server, per million tokens, for `judge/cost`.
        seed: of what is written above temperature 0. A server is sent seed + k for the k-th sample
          of a prompt; null sends it none.
    """

    model: str | None = None
    server: str | None = None
    cache: str | None = None
    concurrency: int = 16
    timeout_s: float = 60.0
    retries: int = 5
    prompt_price: float = 0.0
    completion_price: float = 0.0
    seed: int | None = None

    def __post_init__(self):
        of_server = ("cache", "timeout_s", "retries", "prompt_price", "completion_price")
        plain = {f.name: f.default for f in fields(LanguageModelConfig)}
        for name in of_server if not self.server else ():
            if getattr(self, name) != plain[name]:
                raise ValueError(f"{name} is about a server: set server, or leave it out")
        for name in of_server[2:]:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be > 0, got {self.timeout_s}")
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {self.concurrency}")


@dataclass(frozen=True, kw_only=True)
class JudgeConfig(LanguageModelConfig):
    """A language model that judges responses (AI feedback).

    Args:
        ask: for a "score" from 1 to 10, the mean of its distribution (direct RLAIF); for "points",
          up to 5, one for each quality (self-rewarding); or for a "preference" between two
          responses, in both orders, where a method learns from preferences.
        weight: of a score or of points in the reward.
        options: of `rewards.rating.direct_score`, `additive_ratings` or `rewards.rlaif.Comparison`:
          templates (files or names), instructions, reasons ...
    """

    ask: Literal["nothing", "score", "points", "preference"] = "nothing"
    weight: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if self.ask == "nothing":
            said = self.model or self.server or self.options or self.cache
            if said or self.seed is not None:
                raise ValueError("reward.judge: ask says for what; it is nothing")
        elif not self.model:
            raise ValueError("reward.judge needs a model: a folder, or its name at the server")
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """What says how good a response is. Several add up, each with its weight.

    Args:
        functions: name -> weight of reward functions: those that ship (sentiment_reward,
          exact_match ...), `package.module:function` or `file.py:function`; from Python also the
          functions themselves, of which the record of the run keeps the name. Where a method learns
          from steps they are asked about each step as if it were a response; the column `before` is
          the response up to it.
        options: name -> keyword options of a function.
        model: a reward model: the folder of its run, or one that `jalign export` wrote. Where a
          method learns from steps: the folder of a run of prm.
        model_weight: its weight.
        missing_eos_penalty: taken from the reward of a response that does not end by itself.
        clip: rewards are cut to [-clip, clip]; 0: not.
        temperature: of the preferences that methods of games make of rewards: sigmoid(difference /
          temperature) is the probability that one response is preferred to the other.
        step_separator: text that ends a step of a response, where a method learns from steps.
        judge: a language model that judges.
    """

    functions: dict[str, float] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str | None = None
    model_weight: float = 1.0
    missing_eos_penalty: float = 0.0
    clip: float = 0.0
    temperature: float = 1.0
    step_separator: str = "\n"
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    @property
    def scores(self) -> bool:
        """Whether anything gives a response a number."""
        return bool(self.functions or self.model) or self.judge.ask in ("score", "points")

    @property
    def given(self) -> bool:
        """Whether anything judges."""
        return self.scores or self.judge.ask == "preference"

    def __post_init__(self):
        if any(callable(fn) for fn in self.functions):
            named = {name_of(x) if callable(x) else x: w for x, w in self.functions.items()}
            object.__setattr__(self, "functions", named)
            options = {name_of(x) if callable(x) else x: o for x, o in self.options.items()}
            object.__setattr__(self, "options", options)
        for name in ("missing_eos_penalty", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"reward.{name} must be >= 0, got {getattr(self, name)}")
        if not self.step_separator:
            raise ValueError("reward.step_separator: an empty text would end a step everywhere")
        if not self.temperature > 0:
            raise ValueError(f"reward.temperature must be > 0, got {self.temperature}")
        if unknown := sorted(set(self.options) - set(self.functions)):
            raise ValueError(f"reward.options are for functions that are not used: {unknown}")
