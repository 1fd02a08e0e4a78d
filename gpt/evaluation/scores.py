"""The numbers of one line of the table against one set of references."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fields.metrics.sets import Estimate, bootstrap_mean, fid, kid
from gpt.evaluation.features import Classifier
from gpt.evaluation.items import SignalSet
from gpt.evaluation.metrics import DISTANCES, SET_METRICS, distances_for, estimates


@dataclass
class Scorer:
    """References with what all lines share: their distances among themselves and their features.

    Attributes:
        references: readable pictures, in random order, so that the first n of them are a random draw too.
        classifier: for FID and label accuracy, or None.
        seed: of the bootstrap.
        distances: names from `DISTANCES`.
        with_fid: whether FID belongs to the protocol.
    """

    references: SignalSet
    classifier: Classifier | None
    seed: int
    distances: tuple[str, ...] = tuple(distances_for("images"))
    with_fid: bool = True
    among: dict[str, Tensor] = field(default_factory=dict)
    features: Tensor | None = None

    def __post_init__(self):
        images = self.references.images
        self.among = {name: DISTANCES[name].function(images) for name in self.distances}
        if self.classifier is not None and self.with_fid:
            self.features = self.classifier.read(images)[0]

    def line(self, row: SignalSet) -> dict:
        """One line for JSON: N, the set metrics under each distance, FID, label accuracy, unreadable share."""
        n = min(len(row), len(self.references))
        images, references = row.images[:n], self.references.images[:n]
        result = {"kind": row.kind, "name": row.name, "n": n, "notes": list(row.notes)}
        for name in self.distances:
            measure, among = DISTANCES[name].function, self.among[name][:n, :n]
            if n:
                metrics = estimates(measure(images), measure(images, references), among, self.seed)
            else:
                metrics = dict.fromkeys(SET_METRICS, Estimate(None, note="N = 0"))
            result[name] = {key: value.to_dict() for key, value in metrics.items()}
        result["fid"] = self.fid_of(row)
        result["label_accuracy"] = self._accuracy(row)
        total = len(row) + row.unreadable
        share = row.unreadable / total if total else None
        result["unreadable"] = {"count": row.unreadable, "of": total, "share": share}
        return result

    def features_of(self, row: SignalSet) -> dict:
        """N, FID and KID, for JSON."""
        n = min(len(row), len(self.references))
        found = {"kind": row.kind, "name": row.name, "n": n, "notes": list(row.notes), "fid": self.fid_of(row)}
        if self.features is None or self.classifier is None:
            return {**found, "kid": Estimate(None, note="no classifier").to_dict()}
        estimate = kid(self.classifier.read(row.images[:n])[0], self.features[:n], seed=self.seed)
        return {**found, "kid": {**estimate.to_dict(), "classifier": self.classifier.fingerprint, "n": n}}

    def fid_of(self, row: SignalSet) -> dict:
        """FID alone, for JSON: a small part of the work of a line."""
        if self.features is None or self.classifier is None:
            why = "not part of the protocol" if not self.with_fid else "no classifier"
            return Estimate(None, note=why).to_dict()
        n = min(len(row), len(self.references))
        estimate = fid(self.classifier.read(row.images[:n])[0], self.features[:n], seed=self.seed)
        return {**estimate.to_dict(), "classifier": self.classifier.fingerprint, "n": n}

    def _accuracy(self, row: SignalSet) -> dict:
        """Share of labelled pictures that the classifier reads as meant; a labelled row's unreadable ones are wrong."""
        if self.classifier is None or row.labels is None:
            return Estimate(None, note="no classifier" if self.classifier is None else "no labels").to_dict()
        known = row.labels >= 0
        if not known.any():
            return Estimate(None, note="no labels").to_dict()
        right = (self.classifier.read(row.images[known])[1] == row.labels[known]).float()
        right = torch.cat([right, torch.zeros(row.unreadable)])
        note = f"{row.unreadable} unreadable counted as wrong" if row.unreadable else ""
        estimate = bootstrap_mean(right, seed=self.seed)
        return {**estimate.to_dict(), "note": note, "classifier": self.classifier.fingerprint, "n": len(right)}
