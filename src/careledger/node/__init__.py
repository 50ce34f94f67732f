"""The node: one process that puts custody and directory behind HTTP, and does its duties in the background."""

from careledger.node.local_network import LocalNetwork, LocalNode
from careledger.node.process import run_node
from careledger.node.settings import NodeFolder, create_node

__all__ = ["LocalNetwork", "LocalNode", "NodeFolder", "create_node", "run_node"]
