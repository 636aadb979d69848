"""Conversion of models for other runtimes, all from one frozen graph."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from configs.errors import ConfigError, reason_of
from ensemble.model.runtimes import RUNTIMES, Format, import_openvino

Writer = Callable[[Path], object]


def convert(model: keras.Model, format: Format) -> Writer:
    """Converts a model for batches of any size.

    Args:
        model: Image `(h, w, 3)` to probabilities, in float32.
        format: "onnx", "openvino", "litert" or "saved_model"; the backend is
            TensorFlow, or for "saved_model" JAX.

    Returns:
        A function that writes the model into an existing folder, in the file that
        `RUNTIMES` names and perhaps others.

    Raises:
        ConfigError: If the backend is another or the converter fails.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow" and (backend, format) != ("jax", "saved_model"):
        raise ConfigError(
            f"An export needs the backend tensorflow (saved_model: or jax). Received: {backend}. "
            "Set KERAS_BACKEND to tensorflow, which reads a run of any backend."
        )
    try:
        return _CONVERTERS[format](model)
    except Exception as error:  # converters fail in every way
        raise ConfigError(
            f"{model.name!r} cannot be converted to {format} ({reason_of(error)})."
        ) from error


def to_openvino(model: keras.Model, batch_size: int | None) -> Any:
    """Returns an `openvino.Model` of a model with one input and one output, on TensorFlow.

    Args:
        model: Image to an output.
        batch_size: Images in a batch; None: any number.
    """
    return import_openvino().convert_model(_freeze(model, batch_size).get_concrete_function())


def _convert_to_openvino(model: keras.Model) -> Writer:
    converted = to_openvino(model, None)
    converted.outputs[0].set_names({"probabilities"})

    def write(folder: Path) -> None:
        path = folder / RUNTIMES["openvino"].file
        import_openvino().save_model(converted, path, compress_to_fp16=False)

    return write


def _convert_to_onnx(model: keras.Model) -> Writer:
    from tf2onnx.convert import from_function

    function = _freeze(model, None)
    converted, _ = from_function(function, function.input_signature)
    for tensor in (converted.graph.input[0], converted.graph.output[0]):
        tensor.type.tensor_type.shape.dim[0].dim_param = "batch"
    data = converted.SerializeToString()
    return lambda folder: (folder / RUNTIMES["onnx"].file).write_bytes(data)


def _convert_to_litert(model: keras.Model) -> Writer:
    import tensorflow as tf

    graph = _freeze(model, None).get_concrete_function()
    data = tf.lite.TFLiteConverter.from_concrete_functions([graph], tf.Module()).convert()
    return lambda folder: (folder / RUNTIMES["litert"].file).write_bytes(data)


def _convert_to_saved_model(model: keras.Model) -> Writer:
    if keras.backend.backend() == "jax":
        archive = keras.export.ExportArchive()
        image = keras.InputSpec(shape=model.input_shape, dtype="float32", name="image")
        archive.track(model)
        archive.add_endpoint("serve", lambda image: {"probabilities": model(image)}, [image])
        return lambda folder: archive.write_out(str(folder), verbose=False)
    import tensorflow as tf

    signatures = {"serving_default": _freeze(model, None)}
    return lambda folder: tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)


def _freeze(model: keras.Model, batch_size: int | None) -> Any:
    """Returns a model as a TensorFlow function with its weights as constants.

    With variables, OpenVINO's conversion takes time quadratic in their number, and a SavedModel
    contains them twice.
    """
    import tensorflow as tf

    trainable, rest = (
        [keras.ops.convert_to_numpy(variable) for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )

    def run(image: Any) -> Any:
        constants = [tf.constant(v) for v in trainable], [tf.constant(v) for v in rest]
        output, _ = model.stateless_call(*constants, image, training=False)
        return {"probabilities": output}  # the name of a tensor in an export

    image = tf.TensorSpec((batch_size, *model.input_shape[1:]), "float32", name="image")
    function = tf.function(run, input_signature=[image], autograph=False)
    traced = function.get_concrete_function()
    if not traced.graph.captures:
        return function
    definition = traced.graph.as_graph_def()
    _make_constant(definition, {inner.op.name: outer for outer, inner in traced.graph.captures})

    def rebuild(image: Any) -> Any:
        (output,) = tf.graph_util.import_graph_def(
            definition, {traced.inputs[0].name: image}, [traced.outputs[0].name], name="frozen"
        )
        return {"probabilities": output}

    return tf.function(rebuild, input_signature=[image], autograph=False)


def _make_constant(definition: Any, values: Mapping[str, Any]) -> None:
    """Replaces a graph's captured tensors, which standardizations use, by constants."""
    import tensorflow as tf

    for node in definition.node:
        if node.name in values:
            value = tf.make_tensor_proto(values[node.name].numpy())
            node.op = "Const"
            node.ClearField("attr")
            node.attr["dtype"].type = value.dtype
            node.attr["value"].tensor.CopyFrom(value)


_CONVERTERS: dict[str, Callable[[keras.Model], Writer]] = {
    "onnx": _convert_to_onnx,
    "openvino": _convert_to_openvino,
    "saved_model": _convert_to_saved_model,
    "litert": _convert_to_litert,
}
