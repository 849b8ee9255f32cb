"""Workflows: kinds whose jobs have several steps, from the tree of steps to Celery's canvas.

Import the names for writing workflows from here.
"""

from shared.workflows.definition import Results, WorkflowContract
from shared.workflows.nodes import Chain, Chord, Group, Node, fed_step, step

__all__ = ["Chain", "Chord", "Group", "Node", "Results", "WorkflowContract", "fed_step", "step"]
