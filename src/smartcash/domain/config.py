"""What a training is told: `TrainConfig` and its parts.

Frozen, strict about names, and each default written once. A value that the machine or the data decides is
`"auto"` here and replaced by the value chosen when the run starts: `config.yaml` of a run holds the resolved
configuration, `asked.yaml` the one it was begun with.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from smartcash.domain.errors import ConfigInvalid, Problem
from smartcash.domain.records import LONGEST_NOTES, LONGEST_TAG, MOST_TAGS, tag_fits
from smartcash.utils.printable import plain

Auto = Literal["auto"]
DataFormat = Literal["auto", "yolo", "coco", "voc", "folders"]
MAX_CONFIG_BYTES = 1_000_000
LONGEST_REASON = 200  # characters of what a library says

# pydantic names the branch of a union in a place: data.batch_size.int
_UNION_BRANCH = re.compile(r"(int|float|literal\[.*|function-after.*)$")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_TARGET = re.compile(r"bell|[a-z][a-z0-9+.-]*://[^\s/]\S*", re.IGNORECASE)


class _RuleBroken(ValueError):
    """Carries a Problem's parts through pydantic. `field`: where a whole model's rule was broken; `reads`: the
    other fields that the rule looked at."""

    def __init__(
        self, code: str, value: object, *, field: str = "", reads: Sequence[str] = (), **facts: object
    ) -> None:
        super().__init__(code)
        self.field, self.reads, self.code, self.value, self.facts = field, reads, code, value, facts


class _RulesBroken(ValueError):
    """Several at once: pydantic takes one error from a validator."""

    def __init__(self, rules: Sequence[_RuleBroken]) -> None:
        super().__init__(", ".join(rule.code for rule in rules))
        self.rules = rules


def _within(low: float, high: float) -> AfterValidator:
    def check(value: Any) -> Any:
        if value != "auto" and not low <= value <= high:
            raise _RuleBroken("out_of_range", value, low=low, high=high)
        return value

    return AfterValidator(check)


def _multiple_of_32(value: Any) -> Any:
    if value != "auto" and (value % 32 or not 64 <= value <= 2048):
        raise _RuleBroken("image_size_32", value)
    return value


def _betas(value: tuple[float, float]) -> tuple[float, float]:
    if not all(0 <= beta < 1 for beta in value):
        raise _RuleBroken("betas_range", list(value))
    return value


def _device(value: str) -> str:
    if not _DEVICE.fullmatch(value):
        raise _RuleBroken("device_unknown", value)
    return value


def _targets(value: tuple[str, ...]) -> tuple[str, ...]:
    for number, target in enumerate(value):
        if not _TARGET.fullmatch(target):
            raise _RuleBroken("target_form", target, field=str(number))
    return value


def _tags(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > MOST_TAGS:
        raise _RuleBroken("tags_many", len(value), limit=MOST_TAGS)
    wrong = [tag for tag in value if not tag_fits(tag)]
    if wrong:
        raise _RuleBroken("tag_form", wrong[0][: 2 * LONGEST_TAG], limit=LONGEST_TAG)
    return value


class Part(BaseModel):
    """A frozen group of fields; an unknown name is a problem, not a silent extra."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Part):
    path: str = Field(default="", description="folder or zip of the data set")
    format: DataFormat = Field(default="auto", description="how it is written")
    image_size: Annotated[int | Auto, AfterValidator(_multiple_of_32)] = Field(
        default="auto",
        description="side of the square input, px, a multiple of 32; "
        "auto: the images' own within 224 and 320 (detect), 224 (classify)",
    )
    resize: Literal["letterbox", "stretch"] = Field(
        default="letterbox", description="keep the aspect ratio and pad, or stretch"
    )
    batch_size: Annotated[int | Auto, _within(1, 4096)] = Field(
        default="auto",
        description="images per step; auto: what memory and the data set allow, 16 at most on a CPU",
    )
    workers: Annotated[int | Auto, _within(0, 256)] = Field(
        default="auto",
        description="loader processes; auto: none on a CPU (the images come from a cache), else up to 8",
    )
    cache: Literal["auto", "ram", "off"] = Field(
        default="auto",
        description="keep decoded images in memory; auto: when they fit in a third of what is free",
    )
    balance: bool = Field(
        default=False, description="draw images so that rare classes are seen as often as common ones"
    )
    strict: bool = Field(default=False, description="errors and warnings in the data are fatal")


class ModelConfig(Part):
    backbone: str = Field(
        default="efficientnet_lite0",
        min_length=1,
        description="any timm backbone with strides 8/16/32, or a short name",
    )
    pretrained: bool = Field(default=True, description="start from ImageNet weights; false: from scratch")
    scale: Literal["n", "s", "m"] = Field(default="s", description="width and depth of neck and head")
    freeze_epochs: Annotated[float | Auto, _within(0, 100_000)] = Field(
        default="auto",
        description="first epochs in which the pretrained backbone is not trained; auto: 1, at most a fifth of the training",
    )
    frozen_stages: int = Field(
        default=2,
        ge=0,
        le=5,
        description="lowest stages of a pretrained backbone that are never trained (2: strides 2 and 4)",
    )
    freeze_norm: bool = Field(default=True, description="keep a pretrained backbone's batch-norm statistics")
    backbone_lr_factor: float = Field(
        default=0.2,
        gt=0,
        le=10,
        description="learning rate of the pretrained backbone as a share of optimizer.lr",
    )
    drop_path: float = Field(default=0.0, ge=0, lt=1, description="stochastic depth of the backbone")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="dropout before the classifier's last layer")


class AugmentConfig(Part):
    """`None` takes the preset's value (`backend.augment.PRESETS`)."""

    preset: Literal["banknote", "light", "strong", "off"] = Field(
        default="banknote", description="starting values of all parts below"
    )
    mosaic: float | None = Field(
        default=None, ge=0, le=1, description="share of samples made of four images (detection)"
    )
    mixup: float | None = Field(
        default=None, ge=0, le=1, description="share of batches whose images are blended (classification)"
    )
    scale: float | None = Field(default=None, ge=1, le=4, description="largest zoom in or out, a factor")
    aspect: float | None = Field(default=None, ge=0, le=0.5, description="largest change of the aspect ratio")
    translate: float | None = Field(
        default=None, ge=0, le=0.5, description="largest shift, share of the side"
    )
    perspective: float | None = Field(
        default=None, ge=0, le=0.5, description="largest corner shift, share of the side"
    )
    rotate_deg: float | None = Field(
        default=None, ge=0, le=180, description="largest small rotation, degrees"
    )
    rotate_any: float | None = Field(
        default=None, ge=0, le=1, description="share of samples turned by any angle"
    )
    flip: float | None = Field(
        default=None, ge=0, le=1, description="share mirrored left-right; a mirrored banknote does not exist"
    )
    color: float | None = Field(
        default=None, ge=0, le=1, description="strength of brightness, contrast, gamma and colour casts"
    )
    blur: float | None = Field(default=None, ge=0, le=1, description="share blurred or down- and up-sampled")
    noise: float | None = Field(default=None, ge=0, le=1, description="share with sensor noise")
    jpeg: float | None = Field(default=None, ge=0, le=1, description="share with JPEG artefacts")
    cover: float | None = Field(default=None, ge=0, le=1, description="share with a patch covered")
    close_share: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="last share of the epochs without mosaic, rotation and perspective",
    )


class OptimizerConfig(Part):
    name: Literal["adamw", "adam", "sgd", "rmsprop"] = Field(default="adamw", description="update rule")
    lr: Annotated[float | Auto, _within(1e-9, 10)] = Field(
        default="auto",
        description="peak learning rate for a batch of 16; auto: 2e-3 (AdamW, Adam), 1e-2 (SGD), 1e-3 (RMSprop)",
    )
    weight_decay: float = Field(
        default=0.02, ge=0, lt=1, description="decay of weights; never of norms and biases"
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD and RMSprop")
    betas: Annotated[tuple[float, float], AfterValidator(_betas)] = Field(
        default=(0.9, 0.999), description="moment decays of Adam and AdamW"
    )
    clip_norm: float = Field(default=10.0, ge=0, description="largest norm of the gradient; 0: not clipped")
    accumulate: int = Field(default=1, ge=1, le=1024, description="batches per optimizer step")


class ScheduleConfig(Part):
    name: Literal["cosine", "linear", "step", "plateau", "one_cycle", "constant"] = Field(
        default="cosine", description="course of the learning rate"
    )
    warmup_epochs: Annotated[float | Auto, _within(0, 1000)] = Field(
        default="auto",
        description="epochs of linear rise to the peak; auto: 1.5, at most a quarter of the training",
    )
    final_lr_factor: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="last learning rate as a share of the peak (cosine, linear, one_cycle)",
    )
    step_epochs: float = Field(default=10, gt=0, description="epochs between drops (step)")
    gamma: float = Field(default=0.1, gt=0, lt=1, description="factor of a drop (step, plateau)")
    patience: int = Field(default=3, ge=0, description="epochs without improvement before a drop (plateau)")
    extension: Literal["rescale", "continue_constant", "restart_cosine"] = Field(
        default="rescale",
        description="course after extended_from: rescale (as if the longer training had been meant from the "
        "start), continue_constant (the last rate), restart_cosine (down from the peak again)",
    )
    extended_from: float = Field(
        default=0.0, ge=0, description="epochs of the run that this one extends; 0: it extends none"
    )


class EarlyStoppingConfig(Part):
    patience: int = Field(
        default=0, ge=0, description="epochs without improvement before the training stops; 0: never"
    )
    min_delta: float = Field(default=0.0, ge=0, description="smallest change that counts as improvement")
    start_epoch: int = Field(default=0, ge=0, description="first epoch that is watched")
    monitor: str = Field(
        default="auto", description="metric that must improve; auto: the one of training.monitor"
    )
    mode: Literal["auto", "min", "max"] = Field(
        default="auto", description="is less or more of it better; auto: min for losses, else max"
    )


class PreviewsConfig(Part):
    count: int = Field(
        default=6,
        ge=0,
        le=100,
        description="validation pictures whose predictions are kept for every epoch: a third each of the "
        "worst, middling and best of the first validation; 0: none",
    )
    images: tuple[str, ...] = Field(
        default=(), description="further pictures to keep: file names in the validation split, or paths"
    )


class CallbackConfig(Part):
    """One entry of `training.callbacks`; a bare name stands for `{use: name}`."""

    use: str = Field(
        min_length=1, description="tensorboard, mlflow, wandb, or a class of your own as package.module:Class"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the class")
    on_error: Literal["stop", "skip"] = Field(
        default="stop",
        description="what its error does: stop the run with a checkpoint, or leave it out from then on",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value


class TrainingConfig(Part):
    epochs: int = Field(default=16, ge=1, le=100_000, description="passes over the training data")
    max_hours: float | None = Field(default=None, gt=0, description="stop cleanly after this time, hours")
    monitor: str = Field(
        default="auto",
        description="metric that decides which epoch is best; auto: mAP50_95 (detect), loss (classify)",
    )
    mode: Literal["auto", "min", "max"] = Field(
        default="auto", description="is less or more of it better; auto: min for losses, else max"
    )
    early_stopping: EarlyStoppingConfig = Field(default_factory=EarlyStoppingConfig)
    ema_decay: float = Field(
        default=0.998,
        ge=0,
        lt=1,
        description="decay of the averaged weights that are evaluated and saved; 0: off",
    )
    label_smoothing: float = Field(
        default=0.1, ge=0, lt=1, description="share of the target spread over all classes (classification)"
    )
    nan_rollbacks: int = Field(
        default=2,
        ge=0,
        le=100,
        description="how often a loss that is not finite goes back to the last checkpoint with half the "
        "learning rate; 0: it stops the run",
    )
    previews: PreviewsConfig = Field(default_factory=PreviewsConfig)
    callbacks: tuple[CallbackConfig, ...] = Field(
        default=(), description="what is told of every step and epoch, beside what is built in"
    )


class CheckpointConfig(Part):
    every_epochs: int = Field(default=1, ge=1, description="epochs between checkpoints")
    every_steps: int = Field(
        default=0, ge=0, description="steps between checkpoints within an epoch; 0: none"
    )
    every_minutes: float = Field(
        default=10.0, ge=0, description="minutes between checkpoints within an epoch; 0: none"
    )
    keep_epochs: int = Field(
        default=3, ge=1, description="epoch checkpoints kept; best and latest are always kept"
    )
    backup_dir: str = Field(
        default="",
        description="folder on another disk or Drive that gets a proven copy of the best; empty: none",
    )
    backup_every: int = Field(default=10, ge=1, description="epochs between copies to backup_dir")


class RuntimeConfig(Part):
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto", description="auto, cpu, cuda, cuda:1, mps"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="auto: bf16 where the hardware does it, else fp32"
    )
    threads: Annotated[int | Auto, _within(1, 1024)] = Field(
        default="auto", description="CPU threads; auto: all cores given to this process"
    )
    deterministic: bool = Field(default=True, description="same seed, same machine: bit-equal weights")


class NotifyConfig(Part):
    targets: Annotated[tuple[str, ...], AfterValidator(_targets)] = Field(
        default=(),
        description="who is told when a run ends or fails: bell, a webhook (https://…), or any apprise address "
        "(extra: notify)",
    )


class TrainConfig(Part):
    """A whole training. See `parse` (from a mapping), `from_yaml`, `hash`, `schema` (`model_json_schema`)."""

    task: Literal["auto", "detect", "classify"] = Field(
        default="auto", description="auto: what the labels of the data are"
    )
    name: str = Field(default="", max_length=80, description="a name of your own for the run")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of everything random")
    notes: str = Field(default="", max_length=LONGEST_NOTES, description="free text")
    tags: Annotated[tuple[str, ...], AfterValidator(_tags)] = Field(
        default=(), description="labels to find the run by"
    )
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)
    notify: NotifyConfig = Field(default_factory=NotifyConfig)

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if broken := [*_broken_by_length(self), *_broken_by_task(self), *_broken_by_machine(self)]:
            raise _RulesBroken(broken)
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration that `values` (nested mappings) describe; absent fields take their defaults.

        Raises ConfigInvalid with every problem at once."""
        if not isinstance(values, Mapping):
            raise ConfigInvalid([Problem("config", "config_not_mapping", type(values).__name__)])
        values, problems = _built_in_callbacks_moved(values)
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            found = [problem for problem, _ in _problems(error)]
        else:
            if problems:
                raise ConfigInvalid(problems)
            return config
        # pydantic does not come to the rules between fields while a field is wrong; without it, it does
        wrong = {_settable(problem.field) for problem in found}
        problems += found
        try:
            cls.model_validate(_without(values, wrong))
        except ValidationError as error:
            problems += [
                problem
                for problem, reads in _problems(error)
                if problem.field not in wrong and not wrong.intersection(reads)
            ]
        raise ConfigInvalid(problems)

    @classmethod
    def from_yaml(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
        """The configuration in the YAML 1.2 file `path`, with `overrides` (nested) laid over it."""
        return cls.parse(merge(read_yaml(path), overrides or {}))

    def to_yaml(self) -> str:
        """All fields, defaults included, as YAML that `from_yaml` reads back to an equal configuration."""
        return dump_yaml(self.model_dump(mode="json"))

    def hash(self) -> str:
        """SHA-256 of the canonical JSON of all fields: equal for equal configurations, however they were made."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def anchored(self) -> TrainConfig:
        """The same with the whole path of its data, which names them from any folder."""
        path = Path(self.data.path)
        whole = (
            path.resolve() if ".." in path.parts else path.absolute()
        )  # above a link may lie another folder
        named = str(whole) if self.data.path else ""
        return self.model_copy(update={"data": self.data.model_copy(update={"path": named})})

    def replaced(self, **fields: Any) -> TrainConfig:
        """A copy with fields replaced, those of sections by mappings: `config.replaced(data={"workers": 0})`."""
        return TrainConfig.parse(merge(self.model_dump(), fields))


def _broken_by_length(config: TrainConfig) -> Iterator[_RuleBroken]:
    """What does not fit into the epochs of the training."""
    epochs, schedule = config.training.epochs, config.schedule
    warmup, frozen, stopping = (
        schedule.warmup_epochs,
        config.model.freeze_epochs,
        config.training.early_stopping,
    )
    reads = ("training.epochs",)
    if warmup != "auto" and warmup >= epochs:
        yield _RuleBroken(
            "warmup_too_long", warmup, field="schedule.warmup_epochs", reads=reads, epochs=epochs
        )
    if frozen != "auto" and frozen > epochs:
        yield _RuleBroken("freeze_too_long", frozen, field="model.freeze_epochs", reads=reads, epochs=epochs)
    if schedule.name == "step" and schedule.step_epochs >= epochs:
        reads_name = (*reads, "schedule.name")
        yield _RuleBroken(
            "step_too_long",
            schedule.step_epochs,
            field="schedule.step_epochs",
            reads=reads_name,
            epochs=epochs,
        )
    if schedule.extended_from >= epochs:
        yield _RuleBroken(
            "extension_empty",
            schedule.extended_from,
            field="schedule.extended_from",
            reads=reads,
            epochs=epochs,
        )
    if stopping.patience and stopping.start_epoch >= epochs:
        field = "training.early_stopping.start_epoch"
        reads_patience = (*reads, "training.early_stopping.patience")
        yield _RuleBroken(
            "stopping_too_late", stopping.start_epoch, field=field, reads=reads_patience, epochs=epochs
        )


def _broken_by_task(config: TrainConfig) -> Iterator[_RuleBroken]:
    """What the task cannot use. "auto" becomes a task once the data are read."""
    augment = config.augment
    if config.task == "classify" and augment.mosaic:
        yield _RuleBroken("mosaic_of_detect", augment.mosaic, field="augment.mosaic", reads=("task",))
    if config.task == "detect" and augment.mixup:
        yield _RuleBroken("mixup_of_classify", augment.mixup, field="augment.mixup", reads=("task",))


def _broken_by_machine(config: TrainConfig) -> Iterator[_RuleBroken]:
    """What cannot be together on any machine, and what is there twice."""
    if config.runtime.device == "cpu" and config.runtime.precision == "fp16":
        yield _RuleBroken(
            "fp16_on_cpu", "fp16", field="runtime.precision", reads=("runtime.device",), device="cpu"
        )
    callbacks = config.training.callbacks
    for number, callback in enumerate(callbacks):
        first = callbacks.index(callback)
        if first < number:
            yield _RuleBroken(
                "callback_twice", callback.use, field=f"training.callbacks.{number}", first=first
            )


# callbacks that every training has: the section of the configuration that holds their options, and which they are
BUILT_IN_CALLBACKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "early_stopping": ("training.early_stopping", tuple(EarlyStoppingConfig.model_fields)),
    "checkpoint": ("checkpoint", tuple(CheckpointConfig.model_fields)),
    "ema": ("training", ("ema_decay",)),
    "previews": ("training.previews", tuple(PreviewsConfig.model_fields)),
    "notify": ("notify", tuple(NotifyConfig.model_fields)),
    "csv": ("", ()),
}


def _built_in_callbacks_moved(values: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[Problem]]:
    """The same values with the options of built-in callbacks moved to their sections, where they are written once;
    and what is wrong with the entries of the list, which are then left out of it."""
    training = values.get("training")
    listed = training.get("callbacks") if isinstance(training, Mapping) else None
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return values, []
    others: list[CallbackConfig] = []
    problems: list[Problem] = []
    moved: dict[str, Any] = {}
    for number, raw in enumerate(listed):
        place = f"training.callbacks.{number}"
        try:
            entry = CallbackConfig.model_validate(raw)
        except ValidationError as error:
            problems += [problem for problem, _ in _problems(error, place)]
            continue
        if entry.use not in BUILT_IN_CALLBACKS:
            others.append(entry)
            continue
        section, takes = BUILT_IN_CALLBACKS[entry.use]
        unknown = [f"options.{name}" for name in entry.options if name not in takes]
        unknown += ["on_error"] if "on_error" in entry.model_fields_set else []
        code = "built_in_takes_no" if takes else "built_in_takes_none"
        facts = {"use": entry.use, "takes": ", ".join(takes)}
        problems += [Problem(f"{place}.{name}", code, name, facts) for name in unknown]
        options: Any = {name: value for name, value in entry.options.items() if name in takes}
        if options:  # none must not stand in for a section that is there and wrong
            moved = merge(moved, nested(section, options))
    return merge(merge(values, {"training": {"callbacks": others}}), moved), problems


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file (`1e-3` is a number). Raises ConfigInvalid for anything else."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigInvalid([Problem(str(path), "config_too_large", facts={"limit": MAX_CONFIG_BYTES})])
        raw = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigInvalid([Problem(str(path), "config_missing")]) from error
    except OSError as error:
        raise ConfigInvalid(
            [Problem(str(path), "config_unreadable", facts={"reason": error.strerror})]
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid([Problem(str(path), "config_not_text")]) from error
    try:
        values = YAML(typ="safe", pure=True).load(raw)
    except YAMLError as error:
        raise ConfigInvalid([yaml_problem(str(path), error, raw)]) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigInvalid([Problem(str(path), "config_not_mapping", type(values).__name__)])
    return values


def yaml_problem(where: str, error: YAMLError, content: str) -> Problem:
    """Which line of `content` is not YAML, and why."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        line, reason = error.problem_mark.line, str(error.problem)
    else:
        before = content[: error.position] if isinstance(error, ReaderError) else ""
        line, reason = before.count("\n"), str(error)
    reason = plain(" ".join(reason.split()))[:LONGEST_REASON]
    shown = (content.splitlines() or [""])[line : line + 1]
    if shown and "\t" in shown[0][: len(shown[0]) - len(shown[0].lstrip())]:
        return Problem(where, "yaml_tab", facts={"line": line + 1})
    return Problem(where, "yaml_broken", facts={"line": line + 1, "reason": reason})


def dump_yaml(values: Mapping[str, Any]) -> str:
    """`values` as YAML 1.2 text."""
    stream = StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(values), stream)
    return stream.getvalue()


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`["optimizer.lr=1e-3", "model.backbone=resnet50"]` as nested mappings; values are read as YAML."""
    values: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        name, sign, raw = assignment.partition("=")
        if not sign or not name.strip():
            problems.append(Problem(assignment, "assignment_form", assignment))
            continue
        try:
            value = YAML(typ="safe", pure=True).load(raw) if raw.strip() else ""
        except YAMLError:
            value = raw
        values = merge(values, nested(name.strip(), value))
    if problems:
        raise ConfigInvalid(problems)
    return values


def nested(field: str, value: Any) -> dict[str, Any]:
    """`nested("runtime.threads", 1)` is `{"runtime": {"threads": 1}}`."""
    for part in reversed(field.split(".")):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, mapping by mapping."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


# what pydantic finds wrong → the problem; the facts are named as in its context
_BY_TYPE = {
    "greater_than_equal": ("below_limit", {"limit": "ge"}),
    "greater_than": ("not_above_limit", {"limit": "gt"}),
    "less_than_equal": ("above_limit", {"limit": "le"}),
    "less_than": ("not_below_limit", {"limit": "lt"}),
    "string_too_long": ("text_too_long", {"limit": "max_length"}),
    "string_too_short": ("text_empty", {}),
    "finite_number": ("not_finite", {}),
    "string_type": ("not_text", {}),
    "tuple_type": ("not_list", {}),
    "dict_type": ("not_mapping", {}),
}
_BY_KIND = {"int": "not_whole", "float": "not_number", "bool": "not_switch"}
_SECTIONS = ("model_type", "model_attributes_type")


def _problems(error: ValidationError, within: str = "") -> Iterator[tuple[Problem, Sequence[str]]]:
    """One Problem per failed field, and the other fields that its rule looked at; a union's several complaints
    about one value become one. `within`: the place of what was validated, if it was not the whole."""
    seen: set[str] = set()
    for item in error.errors():
        place = [*filter(None, within.split(".")), *(str(part) for part in item["loc"])]
        place = [part for part in place if not _UNION_BRANCH.match(part)]
        broken = item.get("ctx", {}).get("error")
        rules = broken.rules if isinstance(broken, _RulesBroken) else [broken]
        for rule in rules:
            if isinstance(rule, _RuleBroken):
                name = ".".join([*place, rule.field] if rule.field else place)
                found = Problem(name, rule.code, rule.value, rule.facts), rule.reads
            else:
                found = _from_pydantic(place, item), ()
            if found[0].field not in seen:
                seen.add(found[0].field)
                yield found


def _from_pydantic(place: list[str], item: Any) -> Problem:
    """A complaint of pydantic's own in our words, which exist in both languages."""
    name, value, kind = ".".join(place), item["input"], str(item["type"])
    context = item.get("ctx", {})
    or_auto = "_or_auto" if any(_UNION_BRANCH.match(str(part)) for part in item["loc"]) else ""
    if kind == "extra_forbidden":
        if near := _near(place):
            return Problem(name, "field_unknown", value, {"near": ", ".join(near)})
        return Problem(name, "field_unknown_far", value, {"known": ", ".join(_beside(place))})
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", str(context["expected"]))
        return Problem(name, "choice_unknown", value, _choices(value, choices))
    if kind in _SECTIONS:
        return Problem(name, "not_section", value, {"example": _example(name)})
    if kind == "missing" and not place[-1].isdigit():
        return Problem(name, "field_missing")
    if kind in ("missing", "too_long"):  # of the lists only betas has a fixed length
        return Problem("optimizer.betas", "betas_length", value)
    if kind in _BY_TYPE:
        code, wanted = _BY_TYPE[kind]
        facts: dict[str, Any] = {fact: context[key] for fact, key in wanted.items()}
        if code == "text_too_long":
            facts["length"] = len(value)
        return Problem(name, code, value, facts)
    if (code_of_kind := _BY_KIND.get(kind.partition("_")[0])) is not None:
        return Problem(name, code_of_kind + or_auto, value)
    return Problem(name, "value_wrong", value, {"reason": item["msg"]})


def _choices(value: object, choices: list[str]) -> dict[str, str]:
    from difflib import get_close_matches

    near = get_close_matches(str(value), choices, n=1, cutoff=0.5) or choices[:1]
    return {"choices": ", ".join(choices), "near": near[0]}


def _example(section: str) -> str:
    """A field of a section, to show how it is written."""
    return next((name.rpartition(".")[2] for name in field_names() if name.startswith(f"{section}.")), "use")


def _settable(name: str) -> str:
    """The field that a place lies in (`training.callbacks.0.use`), or the place itself."""
    inside = (field for field in field_names() if name.startswith(f"{field}."))
    return next(inside, name)


def _without(values: Mapping[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    """The same nested values without those of these dotted names."""
    return {
        key: _without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{prefix}{key}" not in names
    }


def field_names(part: type[BaseModel] = TrainConfig, prefix: str = "") -> list[str]:
    """All dotted names a user can set, in order."""
    names = []
    for name, field in part.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Part):
            names += field_names(field.annotation, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _beside(place: list[str]) -> list[str]:
    """The settings of the section that a place lies in, or of the whole where there is no such section."""
    section = "".join(f"{part}." for part in place[:-1])
    inside = [name.removeprefix(section) for name in field_names() if name.startswith(section)]
    return list(dict.fromkeys(name.partition(".")[0] for name in inside or field_names()))


def _near(place: list[str]) -> list[str]:
    """Names close to a mistyped one: its own section's first."""
    from difflib import get_close_matches

    names = field_names()
    names += dict.fromkeys(name.rpartition(".")[0] for name in names if "." in name)
    whole = ".".join(place)
    same_leaf = [name for name in names if name.rsplit(".", 1)[-1] == place[-1]]
    found = list(dict.fromkeys([*same_leaf, *get_close_matches(whole, names, n=3, cutoff=0.5)]))
    return found[:4]
