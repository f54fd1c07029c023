"""Products that do not wait for one another, side by side on the streams of a GPU."""

import functools
import operator
from collections import defaultdict

import torch
from torch import Tensor
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.fx import Graph, Node

_library = torch.library.Library("aae_runner", "DEF")
_library.define("products(Tensor[] left, Tensor[] right) -> Tensor[]", tags=(torch.Tag.flexible_layout,))
_products = torch.ops.aae_runner.products.default
_KINDS = torch.ops.aten.mm.default, torch.ops.aten.addmm.default


class SideBySide(CustomGraphPass):
    """Makes one operation of all products of a step that wait for equally many others.

    One product of these networks occupies a part of a GPU, and that for microseconds. The two gradients of a
    layer, of its weights and of its inputs, need not stand in line, nor need two discriminators.
    """

    def __call__(self, graph: Graph) -> None:
        """Changes a graph of pure functions, as torch's compiler hands it over; it sorts it afterwards."""
        depth: dict[Node, int] = {}
        levels: dict[int, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            product = node.target in _KINDS and not node.kwargs
            depth[node] = max((depth[other] for other in node.all_input_nodes), default=0) + product
            if product:
                levels[depth[node]].append(node)
        for nodes in levels.values():
            if len(nodes) > 1:
                _join(graph, nodes)

    def uuid(self) -> object:
        """Compiled graphs are kept until this file changes."""
        return get_hash_for_files((__file__,))


def _join(graph: Graph, nodes: list[Node]) -> None:
    left, right = ([node.args[place] for node in nodes] for place in (-2, -1))
    with graph.inserting_before(nodes[0]):
        made = graph.call_function(_products, (left, right))
    for k, node in enumerate(nodes):
        with graph.inserting_before(node):
            value = graph.call_function(operator.getitem, (made, k))
            if node.target is torch.ops.aten.addmm.default:
                value = graph.call_function(torch.ops.aten.add.Tensor, (value, node.args[0]))
        node.replace_all_uses_with(value)
        graph.erase_node(node)


@functools.cache
def _streams(device: torch.device, number: int) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(number)]


def _on_streams(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    made = _empty(left, right)
    here = torch.cuda.current_stream(made[0].device)
    streams = [*_streams(made[0].device, len(made) - 1), here]
    for stream in streams[:-1]:
        stream.wait_stream(here)
    for stream, one, other, out in zip(streams, left, right, made, strict=True):
        with torch.cuda.stream(stream):
            torch.mm(one, other, out=out)
    for stream in streams[:-1]:
        here.wait_stream(stream)  # so whatever comes next, the memory's next use included, finds them done
    return made


def _empty(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    return [one.new_empty(one.shape[0], other.shape[1]) for one, other in zip(left, right, strict=True)]


_library.impl("products", _on_streams, "CUDA")
_library.impl("products", lambda left, right: [a @ b for a, b in zip(left, right, strict=True)], "CPU")
torch.library.register_fake("aae_runner::products", _empty, lib=_library)
