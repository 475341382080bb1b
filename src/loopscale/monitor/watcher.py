"""Watch: the states of the loops while any model trains, by hooks on its modules, read every so many steps.

It needs nothing of the training loop: forwards are heard by hooks of the model, steps by a hook of torch's optimizers.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from loopscale.audit import static_verdict
from loopscale.errors import InputError
from loopscale.hf import wrapped_model
from loopscale.model.native import is_native
from loopscale.monitor.alarms import Alarm, Alarms, Thresholds
from loopscale.monitor.capture import Capture
from loopscale.monitor.listening import hear_steps, listen
from loopscale.monitor.log_lines import log_of
from loopscale.monitor.loop_sums import TOKENS, Reading, reading_of
from loopscale.monitor.ranks import first_process, reduced
from loopscale.monitor.roles import Targets, find_targets

logger = logging.getLogger(__name__)
Log = Callable[[dict[str, float], int], Any]
KEPT = 10_000  # readings
PATIENCE = 16  # times `every` forwards without a step: a scaler that skips them all
UNHEARD = 100  # forwards without any step yet: no optimizer that can be heard, or gradients of that many accumulate
DEAR = 0.01  # share of the time above which it is said that watching costs too much


@final
@dataclass(frozen=True)
class Cost:
    """What watching took: seconds, of how many since the first forward, over how many steps."""

    seconds: float
    elapsed: float
    steps: int

    @property
    def share(self) -> float:
        """Share of the time since the first forward."""
        return self.seconds / self.elapsed if self.elapsed > 0 else 0.0

    def __str__(self) -> str:
        each = 1e6 * self.seconds / max(1, self.steps)
        return f"watching took {each:,.0f} us a step, {self.share:.2%} of the time, over {self.steps} steps"


@final
class Watch:
    """The states of a model's loops while it trains; `watch` makes it.

    `readings` are the latest; `steps` are the optimizer steps so far, which a run that goes on sets; `cost` is what
    watching took. `close` takes the hooks off, and so does leaving it as a context manager.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Targets,
        every: int,
        log: Log | None,
        on_alarm: Callable[[Alarm], Any] | None,
        alarms: Alarms,
        output: Callable[[Any], Any] | None,
        tokens: int,
    ) -> None:
        self.every, self.log, self.on_alarm = every, log, on_alarm
        self.steps = 0
        self.readings: deque[Reading] = deque(maxlen=KEPT)
        self._model, self._targets, self._alarms = ref(model), targets, alarms
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._capture = Capture(targets, self._begins, output, tokens)
        self._handles = listen(self._capture, targets.around, targets.states, targets.blocks)
        self._silence = hear_steps(self)
        self._began = self._spent = 0.0
        self._told = False  # whether steps are heard of, from an optimizer or by `step`
        self._seen_training = False
        self._since = 0  # forwards since the last step
        self._step = self._next = 1  # the step that is read, and the next to read
        self._forwards = False  # whether forwards stand for steps
        self._said: set[str] = set()
        self._optimizers: WeakKeyDictionary[Optimizer, bool] = WeakKeyDictionary()

    @property
    def cost(self) -> Cost:
        """What watching took so far."""
        elapsed = time.perf_counter() - self._began if self._began else 0.0
        return Cost(self._spent + self._capture.seconds, elapsed, max(self.steps, self._since))

    def close(self) -> None:
        """Take the hooks off the model; a second time does nothing. What was read last without a step is told."""
        if self._handles and not self.readings:
            if self._capture.tally is not None:
                self._finish(alone=True)
            elif not self._said:
                self._say("closed before it heard of a forward with gradients: nothing was read.")
        self._leave()

    def _leave(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._silence()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self._leave()

    def step(self) -> None:
        """Say that an optimizer step is done, where the optimizer is none of torch's and cannot be heard."""
        self.stepped()

    def trains(self, optimizer: Optimizer) -> bool:
        """Return whether the optimizer moves a parameter of this model."""
        if optimizer not in self._optimizers:
            model = self._model()
            own = set() if model is None else {id(p) for p in model.parameters()}
            self._optimizers[optimizer] = any(id(p) in own for group in optimizer.param_groups for p in group["params"])
        return self._optimizers[optimizer]

    def stepped(self) -> None:
        """Hear of a step. Another optimizer's of the same step comes without a forward, and is none."""
        if self._since == 0:
            return
        if self._forwards:
            self._forwards, self.steps, self._next = False, 0, 1  # what was taken for steps were forwards
        self._told, self._since = True, 0
        self.steps += 1
        if self.steps >= self._next:
            self._finish(alone=False)
        self._capture.ended()

    def _begins(self, grad: bool, training: bool) -> bool:
        """Hear that a forward begins; return whether to read it: the first of a step that is due."""
        self._seen_training |= grad and training
        if not grad or (self._seen_training and not training):
            return False
        self._began = self._began or time.perf_counter()
        if self._forwards:
            self.steps += 1
            if self._capture.tally is not None:
                self._finish(alone=True)
        elif self._since >= (PATIENCE * self.every if self._told else max(UNHEARD, self.every)):
            self._nobody_steps()
        self._since += 1
        due = self._capture.tally is None and self.steps + 1 >= self._next
        if due:
            self._step = self.steps + 1
        return due

    def _nobody_steps(self) -> None:
        """Read on where no step is heard of; where none ever was, forwards stand for steps."""
        if not self._told:
            self._forwards, self.steps = True, self._since
            self._say("no step of torch's optimizers is heard: every forward is one, unless step() says so.")
        self._since = 0
        if self._capture.tally is not None:
            self._finish(alone=True)
        self._next = min(self._next, self.steps + 1)

    def _finish(self, alone: bool) -> None:
        """Make the figures of a step, over all processes unless `alone`, log them and judge them."""
        began = time.perf_counter()
        tally = self._capture.take()
        self._next = (self._step // self.every + 1) * self.every
        packed = reduced(tally, self._device, alone)
        if packed is None:
            names = " or ".join(f"'{name}'" for name in list(self._targets.states)[:3])
            self._say(
                f"no call of {names} with a token was heard in a forward of training. Was the model compiled "
                "and run before watch, or is the module not called in training?"
            )
            return
        dtype = torch.float32 if tally is None else tally.dtype
        reading = reading_of(packed, dtype, self._step, self.cost.share)
        self._doubt(reading, None if tally is None else tally.unfit)
        self.readings.append(reading)
        alarms = self._alarms.of(reading)
        self._spent += time.perf_counter() - began
        self._report(reading, alarms)

    def _doubt(self, reading: Reading, unfit: Tensor | None) -> None:
        """Say what may have been meant otherwise."""
        if not self.readings and len(reading.norm) == 1:
            name = next(iter(self._targets.states))
            self._say(
                f"the first forward that was read has one loop, since it calls '{name}' once. If the model loops, let "
                "`state` match the module that ends each loop."
            )
        if unfit is not None and not bool(unfit.all()):
            self._say(
                f"a mask of padding {tuple(unfit.shape)} does not fit the states: their padded tokens are counted.",
                "padding",
            )

    def _report(self, reading: Reading, alarms: list[Alarm]) -> None:
        if first_process():
            if self.log is not None:
                self.log(reading.scalars(), reading.step)
            for alarm in alarms:
                logger.warning("%s", alarm)
            cost = self.cost
            if cost.share > DEAR and self.every > 1 and len(self.readings) > 4:
                self._say(f"{cost}: raise every={self.every}.", "cost")
        if self.on_alarm is not None:
            for alarm in alarms:
                self.on_alarm(alarm)  # in every process, so that they can stop together

    def _say(self, sentence: str, once: str | None = None) -> None:
        """Warn of something, once."""
        if (once or sentence) not in self._said and first_process():
            self._said.add(once or sentence)
            logger.warning("watch: %s", sentence)


def watch(
    model: Any,
    state: str | None = None,
    *,
    loops: int | str | None = None,
    every: int = 50,
    log: Any = None,
    on_alarm: Callable[[Alarm], Any] | None = None,
    thresholds: Thresholds | None = None,
    output: Callable[[Any], Any] | None = None,
    tokens: int = TOKENS,
) -> Watch:
    """Watch the states of a model's loops while it trains, whoever trains it; attach before the first forward.

    `state` is a regular expression of the name, in `model.named_modules()`, of the module whose output is the state of
    a loop; what torch.compile, DistributedDataParallel, FSDP and PEFT put in front of names is left out. It is called K
    times per forward; or several modules match, each a loop or more, in the order of their calls. `loops` may name the
    block that is called once per loop: of several states in one call of it the last counts; as a number it says how
    many states make a forward where no module around them is called. A model of this library needs neither.

    The first step and every `every`-th is read, from its first forward in training mode: evaluation, and forwards that
    gradient checkpointing runs again, are not. Steps are heard from torch's optimizers; `Watch.step()` says so for
    others. `log` takes (scalars, step): `wandb.log`, `trackio.log`, `accelerator.log`, Lightning's
    `logger.log_metrics`, or transformers' Trainer itself. Alarms are warnings of the logger `loopscale.monitor`, and
    `on_alarm` is called with each, in every process. `output` takes the state out of what the module returns (default:
    the first floating-point tensor in it). Figures are means over at most `tokens` evenly spread tokens of each
    process, those that the call's `attention_mask` calls real.

    Raises `InputError` for names that match nothing, and in the first forward where the states do not fit together.
    """
    if every < 1 or tokens < 1:
        raise InputError(f"every {every} and tokens {tokens} must be at least 1.")
    targets = find_targets(model, state, loops)
    inner = wrapped_model(model)
    verdict = static_verdict(inner.config)["scale"].verdict if is_native(inner) else "undecided"
    blind = None if verdict == "undecided" else verdict == "blind_spot"
    alarms = Alarms(thresholds or Thresholds(), blind)
    return Watch(model, targets, every, log_of(log), on_alarm, alarms, output, tokens)
