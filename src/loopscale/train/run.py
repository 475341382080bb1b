"""Training run: start or go on in its folder, and leave beside the weights where they came from."""

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import TrainerCallback, TrainingArguments, set_seed

from loopscale.audit import stated, static_warning
from loopscale.data import Data, StreamedWindows, collate, load_data, load_stream
from loopscale.data.tokenization import fingerprint
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model_card import Known, named
from loopscale.processes import agreed, require_alike, shared
from loopscale.storage import parse_json, sweep, write_json
from loopscale.system.launcher import own_settings, processes_started
from loopscale.system.lock import require_held
from loopscale.system.manifest import damage, told_when_full, write_manifest
from loopscale.system.process import borrowed, compute_in_one_order
from loopscale.train.arguments import (
    check_room,
    check_windows,
    precision,
    reached_parameters,
    training_arguments,
    unreached,
)
from loopscale.train.callbacks import PresentIntervals, StopOnSignal, Stopwatch, holds_scale, scale_monitors
from loopscale.train.checkpoints import CHECKPOINTS, SUMS_FILE, good_checkpoint
from loopscale.train.config import RunConfig
from loopscale.train.execution import execute, keep_batch
from loopscale.train.identity import check_corpus, check_folder, check_machine, check_start
from loopscale.train.initialisation import GivenWeights, inference_tokenizer, new_model
from loopscale.train.run_folder import (
    DONE_FILE,
    RunRecord,
    finished,
    only_one,
    read_record,
    started,
    write_config,
)
from loopscale.train.run_folder import read_record_of_run as record_of
from loopscale.train.trainer import Diverged, LoopedTrainer

logger = logging.getLogger(__name__)
OF_A_MODEL = ("model*.safetensors", "config.json", "generation_config.json", "tokenizer*.json")  # what we write of it


@dataclass(frozen=True)
class Trained:
    """What a run left: the model in eval mode, its data, the optimizer steps and seconds it took, and the log lines.

    Of a model that was shared out among processes each has its share. Where it `diverged`, that says at which step and
    how; on a CPU the model is as it was before that step. `earlier` is whether it was over before this call, which
    trained nothing then.
    """

    model: LoopedForCausalLM
    data: Data
    steps: int
    seconds: float
    history: list[dict[str, Any]]
    diverged: str | None = None
    earlier: bool = False


def load_run_data(config: RunConfig, quiet: bool = False) -> Data:
    """Return the run's corpus, tokenized and cut into windows."""
    words = config.data.tokenizer == "words"
    if config.data.stream:
        return load_stream(
            config.data.corpus,
            config.data.tokenizer,
            sequence_length=config.data.sequence_length,
            stride=config.data.stride,
            text_field=config.data.text_field,
            rank=int(os.environ.get("RANK") or 0),
            processes=processes_started(),
            quiet=quiet,
        )
    return load_data(
        config.data.corpus,
        config.data.tokenizer,
        vocab_size=config.model_config(None).vocab_size if words else None,
        sequence_length=config.data.sequence_length,
        stride=config.data.stride,
        fit_on=config.data.fit_on,
        text_field=config.data.text_field,
        quiet=quiet,
    )


def train(config: RunConfig, callbacks: Sequence[TrainerCallback] = (), quiet: bool = False) -> Trained | None:
    """Train, or go on where the folder's last checkpoint stands; return None if a signal stopped it (it can go on).

    A run whose loss, gradient or state is not finite ends there, on a CPU before that step, with `Trained.diverged`,
    and keeps its last checkpoint. `quiet` prints nothing. Signals, hooks, random states and settings of torch are as
    they were before when it returns, also when it fails; it may be called from any thread.

    Raises `InputError` for data that does not fit the model or a step, for a folder that belongs to another
    configuration or text, and while another process trains there.
    """
    with borrowed(quiet), own_settings(precision(config), config.train.compile), ExitStack() as held:
        args = training_arguments(config)

        def read() -> Data:
            check_room(config, args)
            check_folder(config)  # before the text is read; what decides is what it holds once nobody else writes there
            return load_run_data(config, quiet)  # one process makes what is not there; others wait

        def prepared() -> tuple[LoopedForCausalLM, dict[str, str] | None] | None:
            if args.should_save:
                held.enter_context(only_one(config.folder))
                sweep(config.folder)
            check_folder(config)
            check_corpus(config.folder, data)
            if finished(config.folder):
                return None
            check_machine(config, args.world_size, precision(config))
            check_windows(config, data, args.world_size)
            return _first_weights(config, data)

        if config.train.deterministic:
            compute_in_one_order()
        with shared():  # so that what is wrong in one process ends all of them
            data = agreed(read)
            require_alike("the hash of the text", lambda: data.corpus.sha256)
            begin = agreed(prepared)
        if begin is None:
            return _finished(config, data, args)
        model, given = begin
        return _train(config, model, data, args, callbacks, given, quiet)


def _first_weights(config: RunConfig, data: Data) -> tuple[LoopedForCausalLM, dict[str, str] | None]:
    """Return the model to train, and what is to be recorded of the weights it was given."""
    set_seed(config.train.seed)
    model = new_model(config, data)
    model.checkpoint_loops = config.train.checkpoint_loops
    begun = record_of(config.folder) if started(config.folder) else None
    given = None
    if config.init_from is not None:
        if begun is not None and begun.init_from is not None and begun.init_from["path"] == config.init_from:
            given = dict(begun.init_from)  # they may be gone by now
        else:
            weights = GivenWeights(config.init_from)
            weights.require_tokenizer(data.tokenizer)
            weights.put_into(model)
            given = {"path": config.init_from, "sha256": weights.sha256}
    check_start(begun, config.init_from, None if given is None else given["sha256"])
    return model, given


def _train(
    config: RunConfig,
    model: LoopedForCausalLM,
    data: Data,
    args: TrainingArguments,
    callbacks: Sequence[TrainerCallback],
    given: dict[str, str] | None,
    quiet: bool,
) -> Trained | None:
    folder, stop, watch = config.folder, StopOnSignal(), Stopwatch(config.folder)
    record = record_of(folder) if started(folder) else None
    checkpoint = good_checkpoint(folder, record.id if record else None)
    if args.should_save:
        record = _write_record(config, data, args, given)
        if not holds_scale(config, callbacks) and (warning := static_warning(model.config)):
            logger.warning("%s", warning)
    if config.train.trackers:  # not among the checkpoints, which go when the run is done
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", str(folder / "tensorboard"))
    monitors = scale_monitors(config)
    shared_out = config.train.shard and args.world_size > 1
    waits = args.world_size > 1 and not shared_out
    parts = unreached(model, config.schedule.extremes) if waits else None
    if config.train.compile:
        model.compile_regions()
    trainer = LoopedTrainer(
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=data.train,
        eval_dataset=data.valid,
        callbacks=[PresentIntervals(), stop, watch, *callbacks, *monitors],
        schedule=config.schedule,
        run=record.id if record else None,
        optimizer=config.train.optimizer,
    )
    trainer.seconds = lambda: watch.seconds
    for monitor in monitors if config.train.trackers else ():
        monitor.log = trainer.log  # so that trackers see its readings
    if checkpoint is not None and (checkpoint / SUMS_FILE).is_file():
        kept = parse_json((checkpoint / SUMS_FILE).read_text(encoding="utf-8"), SUMS_FILE)
        trainer.sums.take_up(kept, args.device)
    if checkpoint is not None and isinstance(data.train, StreamedWindows):
        trainer.take_up_stream(checkpoint)
    if shared_out:
        trainer.share_out([*model.model.prelude, *model.model.layers, *model.model.coda])
    with reached_parameters(trainer, parts):
        diverged = execute(trainer, checkpoint, config, stop, watch, quiet)
    stopped = stop.received and diverged is None and trainer.state.global_step < trainer.state.max_steps
    if stopped:
        return None
    history, steps = trainer.state.log_history, trainer.state.global_step
    whole = trainer.whole_weights()
    if args.should_save:
        mark = None if record is None else record.id
        done = {"run": mark, "steps": steps, "seconds": watch.seconds, "history": history}
        if diverged is None:
            _write_model(model, whole, data, folder, record, steps)
            write_json(folder / DONE_FILE, done, sealed=True)
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        else:
            keep_batch(trainer, diverged, folder)
            write_json(folder / DONE_FILE, {**done, "diverged": diverged.to_dict()}, sealed=True)
    return Trained(model.eval(), data, steps, watch.seconds, history, None if diverged is None else str(diverged))


def _write_record(config: RunConfig, data: Data, args: TrainingArguments, given: dict[str, str] | None) -> RunRecord:
    return write_config(
        config,
        corpus={"name": data.corpus.name, "sha256": data.corpus.sha256},
        tokenizer=fingerprint(data.tokenizer),
        precision=precision(config),
        init_from=given,
        processes=args.world_size,
    )


def _write_model(
    model: LoopedForCausalLM,
    whole: dict[str, Any] | None,
    data: Data,
    folder: Path,
    record: RunRecord | None,
    steps: int,
) -> None:
    """Write model, card and tokenizer, and the list of what a whole folder holds."""
    require_held(folder / CHECKPOINTS)
    with told_when_full(folder, "the model"):
        model.save_pretrained(folder, state_dict=whole)
        model.write_card(folder, stated(model.config, known_of(record, steps)))
        inference_tokenizer(data.tokenizer, model.config.max_position_embeddings).save_pretrained(folder)
        names = [path.name for pattern in OF_A_MODEL for path in sorted(folder.glob(pattern))]
        write_manifest(folder, record.id if record else None, names)


def known_of(record: RunRecord | None, steps: int) -> Known:
    """Return what a model card can say of a run."""
    corpus = {} if record is None else record.corpus or {}
    begun = None if record is None else (record.init_from or {}).get("path")
    return Known(
        corpus.get("name"), corpus.get("sha256"), steps, None if begun is None else f"the weights of {named(begun)}"
    )


def _finished(config: RunConfig, data: Data, args: TrainingArguments) -> Trained:
    """Return what a finished run left, on the device it would train on; of one that diverged, its last checkpoint."""
    folder, record = config.folder, read_record(config.folder)
    source: Path | None = folder
    if record.rest.get("run") not in (None, record_of(folder).id):
        raise InputError(
            f"{folder / DONE_FILE} is of another run: bring the file back, or remove {folder} to train anew."
        )
    if record.diverged is not None:
        source = good_checkpoint(folder)
    elif complaint := damage(folder) or ("" if (folder / "config.json").is_file() else "lacks config.json"):
        raise InputError(f"{folder} {complaint}: bring the file back, or remove the folder to train anew.")
    lost = record.diverged
    diverged = None if lost is None else str(Diverged(lost.step, lost.what, lost.where))
    if source is None:
        raise InputError(f"{folder} diverged before its first checkpoint ({diverged}): remove it to train anew.")
    try:
        model = LoopedForCausalLM.from_pretrained(source).to(args.device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no whole model: remove the folder to train anew.") from error
    if diverged is None and args.should_save:  # a process may have been killed between its last word and this
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return Trained(model.eval(), data, record.steps, record.seconds, record.history, diverged, earlier=True)
