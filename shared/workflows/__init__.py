"""Workflows: kinds whose job is several steps, from the tree of steps to Celery's canvas.

The names that workflows are written with can be imported from here.
"""

from shared.workflows.nodes import Chain, Chord, Group, Node, WorkflowContract, fed_step, step

__all__ = ["Chain", "Chord", "Group", "Node", "WorkflowContract", "fed_step", "step"]
