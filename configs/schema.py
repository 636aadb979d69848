"""The typed settings of an experiment, with their defaults, limits and help texts.

A setting's description is its help text on the command line. `flag(...)` gives
a leaf a short name there; every leaf also has its dotted path as a long name.
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

from configs.paths import expand_home

MAX_NAME_BYTES = 200  # file systems take 255, from which names of temporary files are made too


def flag(name: str, **more: Any) -> dict[str, Any]:
    """Returns the field arguments that give a leaf the short flag `--name`."""
    return {"json_schema_extra": {"flag": name, **more}}


def _split_commas(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, Path) else _split_commas(value)


def _as_mapping(value: Any) -> Any:
    """Reads `a=x,b=y`; a part without `=` is kept under the key `""`."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in _split_commas(value)]
    return {
        key.strip() if sign else "": (rest if sign else key).strip() for key, sign, rest in pairs
    }


def _as_weights(value: Any) -> Any:
    mapping = _as_mapping(value)
    if not isinstance(mapping, Mapping) or "" not in mapping:
        return mapping
    if len(mapping) > 1:
        raise ValueError(f"{mapping['']!r} stands without a branch; write BRANCH={mapping['']}")
    return mapping[""]


def _as_groups(value: Any) -> Any:
    """Reads `negative=anger+disgust,positive=happy` as name to members."""
    mapping = _as_mapping(value)
    if not isinstance(mapping, Mapping):
        return mapping
    if "" in mapping:
        raise ValueError(f"{mapping['']!r} stands without a new name; write NEW=A+B")
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


VoteProtocol = Literal["majority", "plurality", "distribution"]
Count = Annotated[str, BeforeValidator(lambda value: str(value).lower())]
Names = Annotated[list[str], BeforeValidator(_split_commas)]
RunName = Annotated[str, AfterValidator(_check_name)]
HomePath = Annotated[Path, AfterValidator(expand_home)]
Paths = Annotated[list[HomePath], BeforeValidator(_as_list)]
Groups = Annotated[dict[str, list[str]], BeforeValidator(_as_groups)]
Weights = Annotated[str | dict[str, str], BeforeValidator(_as_weights)]


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
        """The label as Keras takes it for a layer: `vgg16` or `vgg16_b`."""
        return self.label.replace(":", "_")


Branches = Annotated[list[Branch], BeforeValidator(_split_commas)]


class AugmentConfig(Settings):
    """How training images are augmented.

    Rotation and flip make the stored views, from which the head learns. All of them make
    the fresh draws of each epoch, from which thawed branches learn.
    """

    rotation: float = Field(
        10.0,
        ge=0,
        le=180,
        description="largest rotation to either side, in degrees, of views and fresh draws",
        **flag("rotation"),
    )
    horizontal_flip: bool = Field(
        True, description="mirror every other view and fresh draw", **flag("horizontal-flip")
    )
    translation: float = Field(
        0.0, ge=0, le=1, description="largest shift, as a share of the side; fresh draws alone"
    )
    zoom: float = Field(
        0.0, ge=0, lt=1, description="largest change of size, as a share; fresh draws alone"
    )
    brightness: float = Field(
        0.0, ge=0, le=1, description="largest change, as a share of 255; fresh draws alone"
    )
    contrast: float = Field(
        0.0, ge=0, le=1, description="largest change, as a share; fresh draws alone"
    )
    erasing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a rectangle becomes grey; fresh draws alone",
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=10,
        description="alpha of MixUp, which blends pairs of images; 0: off; fresh draws alone",
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=10,
        description="alpha of CutMix, which swaps rectangles in pairs of images; 0: off; "
        "fresh draws alone",
    )


def _detector_field(default: str, default_is: str) -> Any:
    return Field(
        default,
        description=f"detector of the faces that are cut out; {default}: {default_is}",
        **flag("faces"),
    )


class FaceConfig(Settings):
    """How faces are found in whole photos and cut out."""

    detector: str = _detector_field("none", "images are face crops already")
    model: HomePath | None = Field(
        None,
        description="the detector's model; none: its own, downloaded once where it must be",
        **flag("face-model", metavar="FILE"),
    )
    threshold: float | None = Field(
        None, ge=0, description="least score of a face; none: the detector's own"
    )
    margin: float = Field(
        0.1, ge=0, le=2, description="added on each side of a face, as a share of its longer side"
    )
    align: bool = Field(
        False, description="turn faces until the eyes are level, where the detector tells them"
    )
    no_face: Literal["skip", "whole", "error"] = Field(
        "skip", description="what becomes of an image without a face"
    )
    several: Literal["largest", "all"] = Field(
        "largest", description="which faces of an image are taken"
    )


class DataConfig(Settings):
    """Which images, which classes, how they are split and augmented."""

    root: Paths = Field(
        [],
        description="folder, .zip or .csv of images; several are read as one; none: drawn faces",
        **flag("data", metavar="PATH"),
    )
    labels: HomePath | None = Field(
        None,
        description="CSV of labels or votes for the images of --data",
        **flag("labels", metavar="CSV"),
    )
    source: str = Field(
        "auto",
        description="how --data is laid out; auto looks at it; see below",
        **flag("source"),
    )
    protocol: VoteProtocol = Field(
        "majority",
        description="how votes become a label: the emotion with more than half of them; the one "
        "with the most; or that one, kept where all emotions together have more than half",
        **flag("protocol"),
    )
    classes: Names = Field(
        [],
        description="classes to keep, in this order; none: all",
        **flag("classes", metavar="A,B,..."),
    )
    merge: Groups = Field(
        {},
        description="classes joined under a new name: negative=anger+disgust,...",
        **flag("merge", metavar="NEW=A+B,..."),
    )
    image_size: int = Field(
        96, ge=8, le=2048, description="height and width in pixels", **flag("image-size")
    )
    validation_fraction: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="share drawn for validation, by class, where the data has no split",
        **flag("validation-fraction"),
    )
    duplicates: Literal["warn", "drop", "error"] = Field(
        "warn",
        description="what becomes of training images that stand in validation or test too, as "
        "they are, mirrored or nearly; drop: they are not learned from",
        **flag("duplicates"),
    )
    faces: FaceConfig = FaceConfig()
    augment: AugmentConfig = AugmentConfig()
    views: int = Field(
        4,
        ge=1,
        le=64,
        description="views of a training image, the image itself included; one is drawn an epoch",
        **flag("views"),
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

    branches: Branches = Field(
        ["vgg16", "densenet121"],
        min_length=1,
        description="backbones that look at the image; vgg16,vgg16:b uses one twice",
        **flag("branches", metavar="A,B,..."),
    )
    weights: Weights = Field(
        "imagenet",
        description="imagenet, random or a file; for each branch: vgg16=FILE,densenet121=imagenet",
        **flag("weights", metavar="W"),
    )
    fusion: Literal["pooled", "grid", "flat"] = Field(
        "pooled",
        description="how feature maps are joined",
        **flag("fusion"),
    )
    standardize: bool = Field(
        False,
        description="scale each branch's features to mean 0 and deviation 1 before they are joined",
        **flag("standardize"),
    )
    head: Part = Field(
        Part(name="dense"),
        description="what follows the fused map; see below",
        **flag("head", options={"initializer": "kernel_initializer"}),
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
                f"branch {twice[0]!r} stands twice; tag the second one: {twice[0]},{twice[0]}:b"
            )
        if isinstance(self.weights, dict):
            stray = sorted(set(self.weights) - set(labels))
            if stray:
                raise ValueError(
                    f"weights are given for {stray[0]!r}, which is no branch of this model "
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

    directory: HomePath | None = Field(
        None,
        description="folder of stored features, shared by all runs; none: the environment "
        "variable ENSEMBLE_CACHE, else a folder in your cache",
        **flag("cache", metavar="FOLDER"),
    )
    dtype: Literal["float32", "float16"] = Field(
        "float32", description="of the stored numbers; float16 takes half the disk"
    )
    engine: Literal["auto", "keras", "openvino"] = Field(
        "auto",
        description="what runs them; auto: openvino where it is installed and there is no GPU",
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of their arithmetic; the shorter ones are for GPUs"
    )


def _as_factors(value: Any) -> Any:
    mapping = _as_mapping(value)
    if isinstance(mapping, Mapping) and "" in mapping:
        raise ValueError(f"{mapping['']!r} stands without a branch; write BRANCH=FACTOR")
    return mapping


Factors = Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_as_factors)]


class FineTuningConfig(Settings):
    """The second phase, in which branches learn too; see --unfreeze."""

    epochs: int = Field(20, ge=1, description="upper limit, beside those of the head alone")
    learning_rate: float = Field(1e-5, gt=0, description="Adam's step")
    factors: Factors = Field(
        {},
        description="what a branch's rate is multiplied by",
        json_schema_extra={"metavar": "BRANCH=X,..."},
    )
    batch_norm: bool = Field(
        False, description="thaw BatchNorm too; in a branch trained from scratch it always learns"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the arithmetic; weights stay float32; the shorter are for GPUs"
    )


class TrainingConfig(Settings):
    """What is learned, how fast and when to stop."""

    batch_size: int = Field(32, ge=2, description="images in a step", **flag("batch-size"))
    epochs: int = Field(
        50, ge=1, description="upper limit; early stopping may end sooner", **flag("epochs")
    )
    learning_rate: float = Field(1e-3, gt=0, description="Adam's step", **flag("learning-rate"))
    beta_1: float = Field(0.9, ge=0, lt=1, description="Adam's decay of the mean gradient")
    beta_2: float = Field(0.999, ge=0, lt=1, description="Adam's decay of the squared gradient")
    epsilon: float = Field(
        1e-7, gt=0, description="Adam's guard against division by zero", **flag("epsilon")
    )
    amsgrad: bool = Field(
        False, description="Adam's variant by Reddi et al. 2018", **flag("amsgrad")
    )
    weight_decay: float = Field(
        0.0, ge=0, lt=1, description="share of a weight that a step of rate 1 takes away"
    )
    clip_norm: float | None = Field(
        None, gt=0, description="longest gradient over all weights; none: any"
    )
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of a moving average of the weights; 0: none"
    )
    schedule: Literal["constant", "cosine", "plateau"] = Field(
        "constant",
        description="the rate over the epochs; cosine falls to 0, plateau halves it after 2 "
        "epochs without improvement",
        **flag("schedule"),
    )
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs in which cosine's rate rises from 0"
    )
    targets: Literal["auto", "label", "distribution", "drawn"] = Field(
        "auto",
        description="the label; the shares of votes; a class drawn from them in each epoch; "
        "auto: the shares under --protocol distribution, else the label",
        **flag("targets"),
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a target spread over all classes",
        **flag("label-smoothing"),
    )
    balance: Literal["none", "weights", "sampling"] = Field(
        "none",
        description="rare classes count more in the loss, or their images are drawn more often",
        **flag("balance"),
    )
    focal_gamma: float = Field(
        0.0,
        ge=0,
        le=10,
        description="how much the loss dwells on hard images (focal loss); 0: cross-entropy",
    )
    monitor: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy", description="what early stopping watches", **flag("monitor")
    )
    patience: int = Field(
        5, ge=1, description="epochs without improvement before stopping", **flag("patience")
    )
    unfreeze: Names = Field(
        [],
        description="what learns in a second phase: all, last:N or a branch's stages, "
        "as vgg16:block5,densenet121:conv5; none: the head alone learns",
        **flag("unfreeze", metavar="[BRANCH:]STAGE,..."),
    )
    fine_tuning: FineTuningConfig = FineTuningConfig()
    calibrate: bool = Field(
        True, description="divide logits by a temperature fitted on the validation images"
    )
    devices: Count = Field(
        "1",
        pattern=r"^([1-9]\d*|all)$",
        description="devices that share each step: a number, or all; a batch is split among them",
        **flag("devices", metavar="N|all"),
    )
    jit_compile: bool = Field(
        False, description="compile tensorflow's steps with XLA, as jax always does"
    )
    trackers: Annotated[list[Literal["tensorboard", "mlflow"]], BeforeValidator(_split_commas)] = (
        Field(
            [],
            description="also tell each epoch to tensorboard, mlflow",
            **flag("track", metavar="NAME,..."),
        )
    )


class ExperimentConfig(Settings):
    """Everything that decides a run's result, and where it is kept."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    features: FeatureConfig = FeatureConfig()
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(
        1,
        ge=0,
        lt=2**31,
        description="of every random choice: split, views, weights, order",
        **flag("seed"),
    )
    plugins: Names = Field(
        [],
        description="modules or .py files that register parts of your own",
        **flag("plugins", metavar="MODULE,..."),
    )
    output: HomePath = Field(
        Path("runs"), description="folder in which runs are kept", **flag("output")
    )
    name: RunName | None = Field(
        None,
        description="name of the run's folder; none: data, branches and time",
        **flag("name"),
    )

    @property
    def unfrozen(self) -> dict[str, list[str]]:
        """Which stages of each branch learn in the second phase: label to stages.

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
        """What is learned from, where `training.targets` leaves it to the protocol too."""
        if self.training.targets != "auto":
            return self.training.targets
        return "distribution" if self.data.protocol == "distribution" else "label"

    @property
    def from_scratch(self) -> bool:
        """Whether all weights are random and learn, so that there is one phase only."""
        return all(
            self.model.weights_of(branch.label) == "random"
            and "all" in self.unfrozen.get(branch.label, ())
            for branch in self.model.branches
        )


class JudgingConfig(Settings):
    """Which classes of other data a run is judged on, and which groups are told apart."""

    map: Groups = Field(
        {},
        description="labels of --data that mean a class of the run: happiness=happy+joy,...; "
        "classes that the data lacks are left out",
        **flag("map", metavar="CLASS=A+B,..."),
    )
    group: str | None = Field(
        None,
        min_length=1,
        description="column of the table of images by which figures are told too, as sex or age",
        **flag("group", metavar="COLUMN"),
    )


class RawFaceConfig(FaceConfig):
    """How faces are found in whole photos and cut out."""

    detector: str = _detector_field("auto", "yunet, or haar with a warning where yunet is missing")


class FaceSetConfig(Settings):
    """How raw photos become a set of faces."""

    labels: HomePath | None = Field(
        None,
        description="CSV of labels or votes for the photos",
        **flag("labels", metavar="CSV"),
    )
    source: str = Field(
        "auto", description="how the photos are laid out; auto looks at them", **flag("source")
    )
    unlabelled: bool = Field(
        False, description="folders of the photos are no classes", **flag("unlabelled")
    )
    near_duplicates: int = Field(
        20,
        ge=0,
        le=256,
        description="photos whose perceptual hashes differ in so few of 256 bits are one group",
        **flag("near-duplicates"),
    )
    plugins: Names = Field(
        [],
        description="modules or .py files that register face detectors of your own",
        **flag("plugins", metavar="MODULE,..."),
    )
    faces: RawFaceConfig = RawFaceConfig()

    @model_validator(mode="after")
    def _check(self) -> "FaceSetConfig":
        if self.unlabelled and (self.labels is not None or self.source != "auto"):
            raise ValueError("--unlabelled goes with neither --labels nor --source")
        return self
