"""Small models with states and constants, run along sequences by hand."""

import numpy as np

from edgekit.onnx_graph.io import open_session
from tests.builders.tiny import model, normal

# As voice activity detectors are: a state with its batch second, and a rate that is no sample.
STEP = (
    "g (float[batch,8] x, float[2,batch,6] state, int64 rate) "
    "=> (float[batch,1] y, float[2,batch,6] state_out) { "
    "r = Cast<to = 1>(rate) s = Mul(r, unit) z = Mul(x, s) "
    "h = Gather<axis = 0>(state, zero) g1 = Gather<axis = 0>(state, one) "
    "a = MatMul(z, w) b = MatMul(h, u) c = Add(a, b) n = Tanh(c) "
    "d = MatMul(n, v) e = Add(d, g1) m = Tanh(e) "
    "l = MatMul(m, o) y = Sigmoid(l) "
    "p = Unsqueeze(n, front) q = Unsqueeze(m, front) state_out = Concat<axis = 0>(p, q) }"
)
STEP_WEIGHTS = {
    "unit": np.float32(1 / 16000),
    "zero": np.int64(0),
    "one": np.int64(1),
    "front": np.int64([0]),
    "w": normal(8, 6, seed=1),
    "u": normal(6, 6, seed=2),
    "v": normal(6, 6, seed=3),
    "o": normal(6, 1, seed=4),
}
STEP_TOML = (
    '[model]\npath = "model.onnx"\n[model.inputs.rate]\nconstant = 16000\n'
    '[model.inputs.state]\nfrom = "state_out"\n'
)

# As decoders are: what was seen before grows by one position a step.
GROWING = (
    "g (float[batch,1,4] x, float[batch,past,4] seen) "
    "=> (float[batch,1,5] y, float[batch,total,4] seen_out) { "
    "seen_out = Concat<axis = 1>(seen, x) t = Transpose<perm = [0,2,1]>(seen_out) "
    "q = MatMul(x, k) s = MatMul(q, t) a = Softmax<axis = 2>(s) c = MatMul(a, seen_out) "
    "y = MatMul(c, w) }"
)
GROWING_WEIGHTS = {"k": normal(4, 4, seed=5), "w": normal(4, 5, seed=6)}
GROWING_TOML = '[model]\npath = "model.onnx"\n[model.inputs.seen]\nfrom = "seen_out"\n'


def step_model(folder):
    """Write the first model with its edgekit.toml."""
    (folder / "edgekit.toml").write_text(STEP_TOML)
    return find_named(folder, model(folder, STEP, weights=STEP_WEIGHTS))


def growing_model(folder):
    (folder / "edgekit.toml").write_text(GROWING_TOML)
    return find_named(folder, model(folder, GROWING, weights=GROWING_WEIGHTS))


def find_named(folder, made):
    path = folder / "model.onnx"
    made.path.rename(path)
    return path


def steps_by_hand(path, x, sequence, *, rate=16000):
    """Return the states fed at every step, and the outputs; zeros at each new sequence."""
    session, states, answers, last = open_session(path), [], [], None
    for row, number in zip(x, sequence, strict=True):
        if number != last:
            state = np.zeros((2, 1, 6), np.float32)
        last = number
        states.append(state[:, 0])
        answer, state = session.run(None, {"x": row[None], "state": state, "rate": np.array(rate)})
        answers.append(answer[0])
    return np.stack(states), np.stack(answers)


def growing_by_hand(path, x, sequence):
    session, states, answers, last = open_session(path), [], [], None
    for row, number in zip(x, sequence, strict=True):
        if number != last:
            seen = np.zeros((1, 0, 4), np.float32)
        last = number
        states.append(seen[0])
        answer, seen = session.run(None, {"x": row[None], "seen": seen})
        answers.append(answer[0])
    return states, np.stack(answers)
