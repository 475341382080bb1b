import os
import subprocess
import sys
from pathlib import Path

import pytest

# in a process of its own: the shape checks that pytest wraps around every function cannot be traced
SCRIPT = """
import sys
import torch
from tests.helpers import tiny_model

ids = torch.arange(40).view(2, 20) % 31
graphs = []

def counting(graph, inputs):
    graphs.append(graph)
    return graph.forward

def loss_of(K):
    torch.manual_seed(0)  # the penalty of the step draws; it runs beside what is compiled
    return model(ids, labels=ids, num_loops=K).loss

whole = {"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear"} if sys.argv[2:] else {}
model = tiny_model(position_embedding=sys.argv[1], penalties=["jacobian"], **whole).train()
plain = {K: loss_of(K) for K in (2, 3, 5)}
gradients = torch.autograd.grad(plain[5], list(model.parameters()))
model.compile_regions(backend=counting)
for K, loss in plain.items():
    compiled = loss_of(K)
    torch.testing.assert_close(compiled, loss)
torch.testing.assert_close(torch.autograd.grad(compiled, list(model.parameters())), gradients)
states = model(ids, output_hidden_states=True).hidden_states  # recorded outside what is compiled
before = len(model.model.prelude)
torch.testing.assert_close(model.readout(states[before + 4], 1, model.context(ids)), model(ids, num_loops=2).logits)
print(len(graphs))
"""


@pytest.mark.parametrize("shape", [("learned",), ("rope", "prelude and coda")])
def test_one_graph_serves_every_layer_loop_and_depth_and_one_the_head(shape):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *shape],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == "2", done.stderr
