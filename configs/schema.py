"""The typed settings of an experiment, with their defaults, limits and help texts.

A setting's description is its help text on the command line, where every leaf has its dotted
path as a flag and common leaves a short one.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_serializer,
    model_validator,
)

from configs.files import expand_home

MAX_NAME_BYTES = 200  # file systems take 255, from which names of temporary files are made too


def setting(
    default: Any,
    description: str,
    flag: str | None = None,
    *,
    metavar: str | None = None,
    options: Mapping[str, str] | None = None,
    **limits: Any,
) -> Any:
    """Returns a pydantic field with a help text and, without dashes, a short flag.

    Args:
        default: Default value.
        description: Help text.
        flag: Short flag.
        metavar: Placeholder of the value in the help.
        options: Short flag to option, for options of a part.
        limits: Limits of the value, as `pydantic.Field` takes them.
    """
    extra = {"flag": flag, "metavar": metavar, "options": options}
    given: Any = {name: value for name, value in extra.items() if value is not None}
    return Field(default, description=description, json_schema_extra=given, **limits)


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, Path) else _split_commas(value)


def _as_mapping(value: Any, form: str = "") -> Any:
    """Reads `a=x,b=y`.

    Args:
        value: The text, or a value of another type, which is returned as it is.
        form: What to write, for the error where a part has no `=`; empty: such a part is kept
            under the key `""`.
    """
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in _split_commas(value)]
    mapping = {
        key.strip() if sign else "": (rest if sign else key).strip() for key, sign, rest in pairs
    }
    if form and "" in mapping:
        raise ValueError(f"{mapping['']!r} has no {form}")
    return mapping


def _as_weights(value: Any) -> Any:
    mapping = _as_mapping(value)
    if not isinstance(mapping, Mapping) or "" not in mapping:
        return mapping
    if len(mapping) > 1:
        raise ValueError(f"{mapping['']!r} has no branch; write BRANCH={mapping['']}")
    return mapping[""]


def _as_factors(value: Any) -> Any:
    return _as_mapping(value, "branch; write BRANCH=FACTOR")


def _as_groups(value: Any) -> Any:
    """Reads `negative=anger+disgust,positive=happy` as name to members."""
    mapping = _as_mapping(value, "new name; write NEW=A+B")
    if not isinstance(mapping, Mapping):
        return mapping
    return {
        name: members.split("+") if isinstance(members, str) else members
        for name, members in mapping.items()
    }


def _check_name(name: str) -> str:
    if not re.fullmatch(r"\.*[\w+-][\w.+-]*", name):
        raise ValueError(
            f"a folder's name may hold letters, digits and _ . + -. Received: {name!r}"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"a folder's name has at most {MAX_NAME_BYTES} bytes. Received: {len(name.encode())}"
        )
    return name


EngineName = Literal["auto", "keras", "openvino", "openvino-direct"]
Precision = Literal["float32", "bfloat16", "float16"]
VoteProtocol = Literal["majority", "plurality", "distribution"]
Count = Annotated[str, BeforeValidator(lambda value: str(value).lower())]
Names = Annotated[list[str], BeforeValidator(_split_commas)]
Trackers = Annotated[list[Literal["tensorboard", "mlflow"]], BeforeValidator(_split_commas)]
RunName = Annotated[str, AfterValidator(_check_name)]
HomePath = Annotated[Path, AfterValidator(expand_home)]
Paths = Annotated[list[HomePath], BeforeValidator(_as_list)]
Groups = Annotated[dict[str, list[str]], BeforeValidator(_as_groups)]
Weights = Annotated[str | dict[str, str], BeforeValidator(_as_weights)]
Factors = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_as_factors)]


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class Part(Settings):
    """A registered part by name, with options of its own.

    In YAML `head: dense` or `head: {name: dense, dropout: 0.3}`; on the command
    line `--head dense --model.head.dropout 0.3`.
    """

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and "options" not in value:
            options = {key: option for key, option in value.items() if key != "name"}
            return {"options": options} | {key: value[key] for key in ("name",) if key in value}
        return value

    @model_serializer
    def _write(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


class Branch(Settings):
    """One branch of the ensemble: a backbone and, where it occurs twice, a tag.

    Written `vgg16` or `vgg16:b`; the text is also the branch's label in reports
    and in `--weights vgg16=...,vgg16:b=...`.
    """

    backbone: str
    tag: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, str):
            backbone, _, tag = value.partition(":")
            return {"backbone": backbone, "tag": tag}
        return value

    @field_validator("tag")
    @classmethod
    def _check_tag(cls, tag: str) -> str:
        if not re.fullmatch(r"\w*", tag):
            raise ValueError("a branch's tag may hold letters, digits and _")
        return tag

    @model_serializer
    def _write(self) -> str:
        return self.label

    @property
    def label(self) -> str:
        """The branch as written: `vgg16` or `vgg16:b`."""
        return f"{self.backbone}:{self.tag}" if self.tag else self.backbone

    @property
    def layer_name(self) -> str:
        """The label as the name of a Keras layer: `vgg16` or `vgg16_b`."""
        return self.label.replace(":", "_")


Branches = Annotated[list[Branch], BeforeValidator(_split_commas)]


class AugmentConfig(Settings):
    """How training images are augmented.

    Rotation and flip make the stored views, from which the head learns. All settings make
    the augmentations of each epoch, from which unfrozen branches learn.
    """

    rotation: float = setting(
        10.0, "largest rotation to either side, in degrees", "rotation", ge=0, le=180
    )
    horizontal_flip: bool = setting(
        True, "mirror every other view and augmented image", "horizontal-flip"
    )
    translation: float = setting(
        0.0, "largest shift, as a share of the side; in fine-tuning only", ge=0, le=1
    )
    zoom: float = setting(
        0.0, "largest change of size, as a share; in fine-tuning only", ge=0, lt=1
    )
    brightness: float = setting(
        0.0, "largest change, as a share of 255; in fine-tuning only", ge=0, le=1
    )
    contrast: float = setting(0.0, "largest change, as a share; in fine-tuning only", ge=0, le=1)
    erasing: float = setting(
        0.0, "probability that a rectangle becomes grey; in fine-tuning only", ge=0, le=1
    )
    mixup: float = setting(
        0.0, "alpha of MixUp, which blends images; 0: off; in fine-tuning only", ge=0, le=10
    )
    cutmix: float = setting(
        0.0, "alpha of CutMix, which swaps rectangles; 0: off; in fine-tuning only", ge=0, le=10
    )


def _detector(default: str, meaning: str) -> Any:
    return setting(
        default, f"detector of the faces that are cut out; {default}: {meaning}", "faces"
    )


class FaceConfig(Settings):
    """How faces are found in whole photos and cut out."""

    detector: str = _detector("none", "images are face crops already")
    model: HomePath | None = setting(
        None,
        "the detector's model; none: its own, downloaded once if needed",
        "face-model",
        metavar="FILE",
    )
    threshold: float | None = setting(
        None, "lowest score of a face; none: the detector's own", ge=0
    )
    margin: float = setting(
        0.1, "added on each side of a face, as a share of its longer side", ge=0, le=2
    )
    align: bool = setting(
        False, "rotate faces until the eyes are level, where the detector locates them"
    )
    no_face: Literal["skip", "whole", "error"] = setting(
        "skip", "treatment of an image without a face"
    )
    several: Literal["largest", "all"] = setting("largest", "which faces of an image are taken")


class DataConfig(Settings):
    """Which images, which classes, how they are split and augmented."""

    root: Paths = setting(
        [],
        "folder, .zip or .csv of images; several are read as one; none: synthetic faces",
        "data",
        metavar="PATH",
    )
    labels: HomePath | None = setting(
        None, "CSV of labels or votes for the images of --data", "labels", metavar="CSV"
    )
    source: str = setting("auto", "layout of --data; auto detects it; see below", "source")
    protocol: VoteProtocol = setting(
        "majority",
        "how votes become a label: the emotion with more than half of them; the one with the "
        "most; or that one, kept where all emotions together have more than half",
        "protocol",
    )
    classes: Names = setting(
        [], "classes to keep, in this order; none: all", "classes", metavar="A,B,..."
    )
    merge: Groups = setting(
        {}, "joined classes: negative=anger+disgust,...", "merge", metavar="NEW=A+B,..."
    )
    image_size: int = setting(96, "height and width in pixels", "image-size", ge=8, le=2048)
    validation_fraction: float = setting(
        0.2,
        "share sampled for validation, by class, where the data has no split",
        "validation-fraction",
        gt=0,
        lt=1,
    )
    duplicates: Literal["warn", "drop", "error"] = setting(
        "warn",
        "treatment of training images that are also in validation or test, exactly, mirrored "
        "or nearly; drop: they are left out of training",
        "duplicates",
    )
    faces: FaceConfig = FaceConfig()
    augment: AugmentConfig = AugmentConfig()
    views: int = setting(
        4, "views per training image, itself included; one per epoch", "views", ge=1, le=64
    )

    @model_validator(mode="after")
    def _check(self) -> "DataConfig":
        if self.labels is not None and not self.root:
            raise ValueError(f"--labels {self.labels} needs --data, the images that it labels")
        if self.faces.several == "all":
            raise ValueError(
                "an image has one label and one face here; use faces.several largest, or cut "
                "all faces out with python -m ensemble.prepare first"
            )
        return self


class ModelConfig(Settings):
    """Branches, their fusion and the head."""

    branches: Branches = setting(
        ["vgg16", "densenet121"],
        "backbones of the branches; vgg16,vgg16:b uses one twice",
        "branches",
        metavar="A,B,...",
        min_length=1,
    )
    weights: Weights = setting(
        "imagenet", "imagenet, random or a file; per branch: vgg16=FILE,...", "weights", metavar="W"
    )
    fusion: Literal["pooled", "grid", "flat"] = setting(
        "pooled", "how feature maps are joined", "fusion"
    )
    standardize: bool = setting(
        False, "scale each branch's features to mean 0 and deviation 1 first", "standardize"
    )
    head: Part = setting(
        Part(name="dense"),
        "layers after the fused map; see below",
        "head",
        options={"initializer": "kernel_initializer"},
    )

    @field_validator("head", mode="before")
    @classmethod
    def _name_head(cls, head: Any) -> Any:
        return {"name": "dense", **head} if isinstance(head, dict) else head

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        labels = [branch.label for branch in self.branches]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(
                f"branch {twice[0]!r} occurs twice; tag the second one: {twice[0]},{twice[0]}:b"
            )
        stray = sorted(set(self.weights) - set(labels)) if isinstance(self.weights, dict) else []
        if stray:
            raise ValueError(
                f"weights are given for {stray[0]!r}, which is not a branch of this model "
                f"({', '.join(labels)})"
            )
        return self

    def weights_of(self, label: str) -> str:
        """Returns where the weights of the branch `label` come from."""
        if isinstance(self.weights, str):
            return self.weights
        return self.weights.get(label, "imagenet")


class FeatureConfig(Settings):
    """How frozen branches are run, and where their features are kept."""

    directory: HomePath | None = setting(
        None,
        "folder of stored features, shared by all runs; none: ENSEMBLE_CACHE or your cache",
        "cache",
        metavar="FOLDER",
    )
    dtype: Literal["float32", "float16"] = setting(
        "float32", "type of the stored numbers; float16 takes half the disk"
    )
    engine: EngineName = setting(
        "auto",
        "what runs them; auto: openvino where it is installed and there is no GPU; "
        "openvino-direct: without Winograd's algorithm",
    )
    precision: Precision = setting(
        "float32", "precision of the computation; the shorter ones are for GPUs"
    )


class FineTuningConfig(Settings):
    """The second phase, in which branches are trained too; see --unfreeze."""

    epochs: int = setting(20, "upper limit, in addition to those of the head alone", ge=1)
    learning_rate: float = setting(1e-5, "learning rate of Adam", gt=0)
    factors: Factors = setting({}, "multiplier of a branch's learning rate", metavar="BRANCH=X,...")
    batch_norm: bool = setting(
        False, "unfreeze BatchNorm too; it always learns in a branch trained from scratch"
    )
    precision: Precision = setting(
        "float32",
        "precision of the computation; weights stay float32; the shorter ones are for GPUs",
    )


class TrainingConfig(Settings):
    """What is trained, how fast and when to stop."""

    batch_size: int = setting(32, "images per update", "batch-size", ge=2)
    epochs: int = setting(50, "upper limit; early stopping may end sooner", "epochs", ge=1)
    learning_rate: float = setting(1e-3, "learning rate of Adam", "learning-rate", gt=0)
    beta_1: float = setting(0.9, "Adam's decay of the mean gradient", ge=0, lt=1)
    beta_2: float = setting(0.999, "Adam's decay of the squared gradient", ge=0, lt=1)
    epsilon: float = setting(1e-7, "Adam's guard against division by zero", "epsilon", gt=0)
    amsgrad: bool = setting(False, "Adam's variant by Reddi et al. 2018", "amsgrad")
    weight_decay: float = setting(
        0.0, "share of a weight that an update of rate 1 removes", ge=0, lt=1
    )
    clip_norm: float | None = setting(
        None, "largest norm of the gradient over all weights; none: any", gt=0
    )
    ema: float = setting(0.0, "decay of a moving average of the weights; 0: none", ge=0, lt=1)
    schedule: Literal["constant", "cosine", "plateau"] = setting(
        "constant",
        "learning rate over the epochs; cosine falls to 0, plateau halves it after 2 epochs "
        "without improvement",
        "schedule",
    )
    warmup_epochs: float = setting(0.0, "epochs in which cosine's rate rises from 0", ge=0)
    targets: Literal["auto", "label", "distribution", "drawn"] = setting(
        "auto",
        "the label; the vote distribution; a class sampled from it in each epoch (drawn); auto: "
        "the distribution under --protocol distribution, else the label",
        "targets",
    )
    label_smoothing: float = setting(
        0.0, "share of a target spread over all classes", "label-smoothing", ge=0, lt=1
    )
    balance: Literal["none", "weights", "sampling"] = setting(
        "none", "whether rare classes get larger weights or are sampled more often", "balance"
    )
    focal_gamma: float = setting(
        0.0, "emphasis of the loss on hard images (focal loss); 0: cross-entropy", ge=0, le=10
    )
    monitor: Literal["val_accuracy", "val_loss"] = setting(
        "val_accuracy", "metric that early stopping watches", "monitor"
    )
    patience: int = setting(5, "epochs without improvement before stopping", "patience", ge=1)
    unfreeze: Names = setting(
        [],
        "what is trained in a second phase: all, last:N or a branch's stages, as "
        "vgg16:block5,densenet121:conv5; none: only the head is trained",
        "unfreeze",
        metavar="[BRANCH:]STAGE,...",
    )
    fine_tuning: FineTuningConfig = FineTuningConfig()
    calibrate: bool = setting(
        True, "divide logits by a temperature fitted on the validation images"
    )
    devices: Count = setting(
        "1",
        "devices that share each update: a number, or all; a batch is split among them",
        "devices",
        metavar="N|all",
        pattern=r"^([1-9]\d*|all)$",
    )
    jit_compile: bool = setting(False, "compile tensorflow's updates with XLA, as jax always does")
    trackers: Trackers = setting(
        [], "also log each epoch to tensorboard, mlflow", "track", metavar="NAME,..."
    )


class ExperimentConfig(Settings):
    """Everything that decides a run's result, and where it is kept."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    features: FeatureConfig = FeatureConfig()
    training: TrainingConfig = TrainingConfig()
    seed: int = setting(
        1, "seed of the split, the views, initial weights and data order", "seed", ge=0, lt=2**31
    )
    plugins: Names = setting(
        [], "modules or .py files that register your own parts", "plugins", metavar="MODULE,..."
    )
    output: HomePath = setting(Path("runs"), "folder in which runs are kept", "output")
    name: RunName | None = setting(
        None, "name of the run's folder; none: data, branches and time", "name"
    )

    @property
    def unfrozen(self) -> dict[str, list[str]]:
        """Stages of each branch that are trained in the second phase: label to stages.

        An entry of `training.unfreeze` that names no branch is for all of them.
        """
        labels = [branch.label for branch in self.model.branches]
        stages: dict[str, list[str]] = {}
        for entry in self.training.unfreeze:
            named = [label for label in labels if entry.startswith(f"{label}:")]
            stage = entry.removeprefix(f"{max(named, key=len)}:") if named else entry
            for label in [max(named, key=len)] if named else labels:
                stages.setdefault(label, []).append(stage)
        return stages

    @property
    def targets(self) -> Literal["label", "distribution", "drawn"]:
        """The training targets, with "auto" resolved by the protocol."""
        if self.training.targets != "auto":
            return self.training.targets
        return "distribution" if self.data.protocol == "distribution" else "label"

    @property
    def from_scratch(self) -> bool:
        """Whether all weights are random and trained, so that there is one phase only."""
        return all(
            self.model.weights_of(branch.label) == "random"
            and "all" in self.unfrozen.get(branch.label, ())
            for branch in self.model.branches
        )


class EvaluationConfig(Settings):
    """Classes and groups of other data on which a run is evaluated."""

    map: Groups = setting(
        {},
        "labels of --data that mean a class of the run: happiness=happy+joy,...; classes that "
        "the data lacks are left out",
        "map",
        metavar="CLASS=A+B,...",
    )
    group: str | None = setting(
        None,
        "column of the table of images to report metrics by, such as sex or age",
        "group",
        metavar="COLUMN",
        min_length=1,
    )


class RawFaceConfig(FaceConfig):
    """How faces are found in whole photos and cut out."""

    detector: str = _detector("auto", "yunet, or haar with a warning where yunet is missing")


class FaceSetConfig(Settings):
    """How raw photos become a set of faces."""

    labels: HomePath | None = setting(
        None, "CSV of labels or votes for the photos", "labels", metavar="CSV"
    )
    source: str = setting("auto", "layout of the photos; auto detects it", "source")
    unlabelled: bool = setting(False, "folders of the photos are not classes", "unlabelled")
    near_duplicates: int = setting(
        20,
        "photos whose perceptual hashes differ in at most so many of 256 bits are one group",
        "near-duplicates",
        ge=0,
        le=256,
    )
    plugins: Names = setting(
        [],
        "modules or .py files that register face detectors of your own",
        "plugins",
        metavar="MODULE,...",
    )
    faces: RawFaceConfig = RawFaceConfig()

    @model_validator(mode="after")
    def _check(self) -> "FaceSetConfig":
        if self.unlabelled and (self.labels is not None or self.source != "auto"):
            raise ValueError("--unlabelled goes with neither --labels nor --source")
        return self
