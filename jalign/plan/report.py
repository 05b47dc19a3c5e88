"""The report of a plan, as JSON and as text."""

from __future__ import annotations

from dataclasses import dataclass, field

from jalign.kernels.devices import GIB
from jalign.plan import prediction
from jalign.plan.compile import Program
from jalign.plan.targets import Target

# published trainers reach 0.35 to 0.58 on H100s and H200s
MFU = 0.4
_CUDA_ROOM = 0.92  # usable share of a card's memory; driver, cuDNN and fragmentation use 8 %


@dataclass
class Report:
    """The plan of a run for a target.

    Attributes:
      config, target: the planned config and hardware.
      facts: name -> text, for the header of the report.
      parts: role -> bytes resident on one device.
      host_parts: role -> bytes offloaded to host memory, per device.
      programs: the compiled programs.
      beside: per program, bytes resident on one device besides its arguments.
      flops: FLOPs of one optimizer step over all devices, without and with recomputation.
      bytes_moved: minimum bytes moved between one device and its memory per step.
      tokens: tokens of the examples of one step.
      cache: bytes of keys and values on one device while sampling.
      steps: optimizer steps; 0 if they depend on data that are not available here.
      rollouts: number of rollouts of an online run.
      sampling_s: minimum seconds of a rollout with maximum lengths, by memory bandwidth.
      saved: bytes of a checkpoint, all devices together.
      kept: maximum number of checkpoints on disk: `checkpoint.keep`, the one being written, and
        the best.
    """

    config: str
    target: Target
    facts: dict[str, str]
    parts: dict[str, float]
    host_parts: dict[str, float] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    flops: tuple[float, float] = (0.0, 0.0)
    bytes_moved: float = 0.0
    tokens: int = 0
    cache: float = 0.0
    steps: int = 0
    rollouts: int = 0
    sampling_s: float = 0.0
    saved: float = 0.0
    kept: int = 0

    @property
    def room(self) -> float:
        """Bytes of a device that are available to programs."""
        memory = self.target.accelerator.memory
        return memory * (_CUDA_ROOM if self.target.platform == "cuda" else 1.0)

    @property
    def peaks(self) -> list[float]:
        """Peak bytes on one device for each program, including resident arrays."""
        return [
            (p.needed if p.memory is None else p.memory.peak) + beside
            for p, beside in zip(self.programs, self.beside, strict=True)
        ]

    @property
    def fits(self) -> bool:
        """Whether every program compiled and none exceeds the memory of a device."""
        # a TPU's compiler refuses what does not fit; CUDA's accepts it, so peaks are compared
        taken = all(p.memory is not None for p in self.programs)
        return taken and max(self.peaks) <= self.room

    @property
    def floor_s(self) -> dict[str, float]:
        """Minimum seconds of a step, by the limiting resource."""
        a, n = self.target.accelerator, self.target.devices
        # the train step is always the first program
        sent = sum(t.bytes for t in self.programs[0].collectives.values())
        return {
            # what is recomputed takes time as well
            "arithmetic": self.flops[1] / (a.flops * n),
            "memory": self.bytes_moved / a.bandwidth,
            "links": sent / a.link,
        }

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second at an MFU of 40 %."""
        return (
            self.tokens
            * MFU
            * self.target.accelerator.flops
            * self.target.devices
            / (self.flops[0] or 1.0)
        )

    @property
    def step_s(self) -> float:
        """Seconds of a step at an MFU of 40 %."""
        a = self.target.accelerator
        # an MFU counts useful FLOPs: recomputation is not among them
        return self.flops[0] / (MFU * a.flops * self.target.devices)

    def record(self) -> dict[str, object]:
        """The report as JSON: GiB, seconds, counts."""
        return {
            "config": self.config,
            "target": self.target.name,
            "devices": self.target.devices,
            "fits": self.fits,
            "gib_per_device": _gib(self.target.accelerator.memory),
            "gib_usable": _gib(self.room),
            "gib_peak": _gib(max(self.peaks)),
            "gib_parts": {name: _gib(x) for name, x in self.parts.items()},
            "gib_host_parts": {name: _gib(x) for name, x in self.host_parts.items()},
            "gib_cache": _gib(self.cache),
            "programs": [
                {
                    "name": p.name,
                    "fits": p.memory is not None and peak <= self.room,
                    "gib_peak": _gib(peak),
                    "gib_arguments": _gib(p.memory.arguments) if p.memory else None,
                    "gib_temporary": _gib(p.memory.temporary) if p.memory else None,
                    "mib_code": round(p.memory.code / 2**20, 2) if p.memory else None,
                    "collectives": {
                        kind: {"count": t.count, "gib": _gib(t.bytes)}
                        for kind, t in p.collectives.items()
                    },
                    "compile_s": round(p.seconds, 1),
                    "predicted": p.timeline
                    and prediction.record(p.timeline, self.target.accelerator),
                }
                for p, peak in zip(self.programs, self.peaks, strict=True)
            ],
            "step": {
                "tokens": self.tokens,
                "tflop": self.flops[0] / 1e12,
                "tflop_with_recomputation": self.flops[1] / 1e12,
                "floor_s": self.floor_s,
                "tokens_per_s_at_40_mfu": self.tokens_per_s,
                "predicted": self.predicted,
            },
            "run": {
                "steps": self.steps or None,
                "training_s_at_40_mfu": self.steps * self.step_s or None,
                "rollouts": self.rollouts,
                "sampling_floor_s": self.rollouts * self.sampling_s,
            },
            "checkpoints": {
                "gib_each": _gib(self.saved),
                "gib_on_disk": _gib(self.saved * self.kept),
                "gib_in_host_memory_of_all": _gib(self.saved),
            },
            "facts": self.facts,
        }

    @property
    def predicted(self) -> dict[str, float] | None:
        """Seconds of the train step, tokens per second, MFU; None without a timeline."""
        accelerator, t = self.target.accelerator, self.programs[0].timeline
        if t is None:
            return None
        seconds = prediction.predicted_s(t, accelerator)
        peak = accelerator.flops * self.target.devices
        return {
            "step_s": seconds,
            "tokens_per_s": self.tokens / seconds,
            # useful FLOPs: recomputation is not among them
            "mfu": self.flops[0] / (seconds * peak),
            "exposed_collectives_s": t.of("collective") * seconds / t.seconds,
        }

    def _predicted_lines(self) -> list[str]:
        accelerator, p = self.target.accelerator, self.predicted
        if p is None:
            return []
        lines = [
            f"  predicted: {p['step_s']:.3g} s a step, {p['tokens_per_s']:.4g} tokens/s, MFU "
            f"{p['mfu']:.1%}, {p['exposed_collectives_s']:.3g} s of collectives exposed "
            f"({prediction.basis(accelerator)})"
        ]
        for program in self.programs:
            if program.timeline:
                lines += prediction.lines(program.name, program.timeline, accelerator)
        return lines

    def lines(self) -> list[str]:
        """The report as text."""
        a, t = self.target.accelerator, self.target
        slices = f" in {t.slices} slices" if t.slices > 1 else ""
        lines = [f"{self.config} on {t.name}: {t.devices} x {a.kind}{slices}"]
        lines += [f"  {name:<12}{words}" for name, words in self.facts.items()]
        verdict = "fits" if self.fits else "DOES NOT FIT"
        lines.append(
            f"{verdict}: {max(self.peaks) / GIB:.2f} of {self.room / GIB:.2f} GiB per device"
        )
        lines.append("  stays, GiB per device")
        lines += [f"    {name:<22}{x / GIB:8.2f}" for name, x in self.parts.items()]
        if self.host_parts:
            lines.append("  stays in the host's memory, GiB per device")
            lines += [f"    {name:<22}{x / GIB:8.2f}" for name, x in self.host_parts.items()]
        lines.append("  programs, GiB per device       peak  arguments  temporary  code MiB")
        for p, peak in zip(self.programs, self.peaks, strict=True):
            if p.memory is None:
                lines.append(f"    {p.name:<24}{peak / GIB:9.2f}  refused by the compiler")
                continue
            m = p.memory
            lines.append(
                f"    {p.name:<24}{peak / GIB:9.2f}{m.arguments / GIB:11.2f}"
                f"{m.temporary / GIB:11.2f}{m.code / 2**20:10.1f}"
            )
            for kind, x in p.collectives.items():
                lines.append(f"      {kind:<22}{x.count:9.0f} x, {x.bytes / GIB:.2f} GiB in all")
        if self.cache:
            lines.append(f"  keys and values while sampling: {self.cache / GIB:.2f} GiB")
        floor = ", ".join(f"{name} {x:.3g}" for name, x in self.floor_s.items())
        lines.append(
            f"  a step: {self.tokens} tokens, {self.flops[0] / 1e12:.4g} TFLOP "
            f"({self.flops[1] / 1e12:.4g} with what is computed twice); seconds at least: {floor}"
        )
        lines.append(
            f"  at an MFU of {MFU:.0%}: {self.tokens_per_s:.4g} tokens/s, "
            f"{self.step_s:.3g} s a step; {self._duration()}"
        )
        lines += self._predicted_lines()
        lines.append(
            f"  a checkpoint: {_size(self.saved)} on disk, at most {self.kept} of them at once: "
            f"{_size(self.saved * self.kept)}; while it is written as much as one in the memory of "
            "all hosts together, beside the data"
        )
        return lines

    def _duration(self) -> str:
        if not self.steps:
            return "the number of steps is unknown: the data cannot be read here"
        training = f"{self.steps} steps {_time(self.steps * self.step_s)}"
        if not self.rollouts:
            return f"{training}, evaluations and compiling aside"
        return (
            f"{training}; to sample {self.rollouts} rollouts comes on top, "
            f"{_time(self.rollouts * self.sampling_s)} at least"
        )


def _gib(x: float) -> float:
    return round(x / GIB, 3)


def _size(x: float) -> str:
    return f"{x / GIB:.3g} GiB" if x >= GIB / 10 else f"{x / 2**20:.3g} MiB"


def _time(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
