"""Models of Keras and TensorFlow with their outputs; run in a separate process."""

import keras
import numpy as np
import tensorflow as tf
import tf_keras

L = keras.layers


def two():
    zebra, apple = keras.Input((4,), name="zebra"), keras.Input((3,), name="apple")
    joined = L.Concatenate()([zebra, L.Dense(4, activation="gelu")(apple)])
    outputs = [L.Dense(2, name="second")(joined), L.Dense(3, name="first")(joined)]
    return keras.Model([zebra, apple], outputs)


def words():
    ids = keras.Input((None,), dtype="int32", name="ids")
    vectors = L.Embedding(50, 8)(ids)
    mixed = L.MultiHeadAttention(2, 4)(vectors, vectors)
    return keras.Model(ids, L.Dense(2, name="topic")(L.GlobalAveragePooling1D()(mixed)))


def depthwise():
    return tf_keras.Sequential(
        [
            tf_keras.Input((8, 8, 3), name="image"),
            tf_keras.layers.DepthwiseConv2D(3),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(3, name="out"),
        ]
    )


class Doubled(L.Layer):
    def call(self, x):
        return 2 * x


class Signed(tf.Module):
    def __init__(self):
        super().__init__()
        self.w = tf.Variable(tf.ones((4, 2)))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def one(self, x):
        return {"y": x @ self.w}

    @tf.function(input_signature=[tf.TensorSpec([2, 4], tf.float32, name="x")])
    def two(self, x):
        return {"y": x @ self.w + 1}


@tf.function(
    input_signature=[
        tf.TensorSpec([None, 2], tf.float32, name="left"),
        tf.TensorSpec([None, 2], tf.float32, name="right"),
    ]
)
def function(left, right):
    return {"b": left - right, "a": left + right}


@tf.function
def anything(x):
    return tf.nn.softmax(x)


def anything_with_example():
    return anything, np.ones((2, 4), np.float32)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
def text(x):
    return tf.strings.length(x)


def make(folder):
    keras.utils.set_random_seed(0)
    model = two()
    model.save(folder / "two.keras")
    model.save(folder / "two.h5")
    rng = np.random.default_rng(0)
    zebra = rng.normal(size=(3, 4)).astype(np.float32)
    apple = rng.normal(size=(3, 3)).astype(np.float32)
    second, first = (t.numpy() for t in model([zebra, apple]))
    np.savez(folder / "two.npz", zebra=zebra, apple=apple, second=second, first=first)
    model.save_weights(folder / "alone.weights.h5")
    words().save(folder / "words.keras")
    old = depthwise()
    old.compile("adam", "mse")
    old.fit(np.zeros((4, 8, 8, 3)), np.zeros((4, 3)), verbose=0)  # gives the optimizer slots
    old.save(folder / "old.h5")
    old.save(folder / "old", save_format="tf")
    keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: 2 * x)]).save(folder / "lambda.keras")
    keras.Sequential([keras.Input((4,)), Doubled()]).save(folder / "own.keras")
    signed = Signed()
    tf.saved_model.save(signed, folder / "signed", {"one": signed.one, "two": signed.two})
    (folder / "text.h5").write_bytes(b"not a model")
    (folder / "cut.keras").write_bytes((folder / "two.keras").read_bytes()[:2000])
