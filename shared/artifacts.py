"""The artifacts of `shared.contract.artifacts`, under the name that older contracts import."""

from shared.contract.artifacts import Artifact, ArtifactUri, Column, Dataset

__all__ = ["Artifact", "ArtifactUri", "Column", "Dataset"]
