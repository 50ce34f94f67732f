"""The node: one process that puts custody and directory behind HTTP, and does its duties in the background."""

from careledger.node.local_network import Engine, LocalNetwork, LocalNode, engine_parameters
from careledger.node.process import run_node
from careledger.node.settings import NodeFolder, create_node

__all__ = ["Engine", "LocalNetwork", "LocalNode", "NodeFolder", "create_node", "engine_parameters", "run_node"]
